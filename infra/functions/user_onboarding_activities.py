from activities.user_onboarding import approve_users, import_users, remind_approver
from durably.aws import activity_handler

handler = activity_handler(approve_users, import_users, remind_approver)
