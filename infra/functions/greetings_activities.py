from activities.greetings import hello_pokemon, hello_professor_oak, hello_trainer
from durably.aws import activity_handler

handler = activity_handler(hello_pokemon, hello_professor_oak, hello_trainer)
