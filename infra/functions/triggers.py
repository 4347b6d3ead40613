from durably.aws import trigger_handler
from orchestrators.user_onboarding import onboard_users
from orchestrators.user_onboarding_triggers import approve, users_arrived

handler = trigger_handler(users_arrived, approve, starts=[onboard_users])
