from durably.aws import api_handler
from orchestrators.greetings import greet_everyone
from orchestrators.pokemon_capture import capture_or_heal, capture_pokemon
from orchestrators.routing import route_packet
from orchestrators.user_onboarding import onboard_users

handler = api_handler(route_packet, onboard_users, greet_everyone, capture_pokemon, capture_or_heal)
