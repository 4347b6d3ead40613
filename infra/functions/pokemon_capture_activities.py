from activities.pokemon_capture import attack, cure, paralyze, restore, throw_pokeball
from durably.aws import activity_handler

handler = activity_handler(attack, cure, paralyze, restore, throw_pokeball)
