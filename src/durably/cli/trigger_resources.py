"""What triggers need, as text: of template.yaml down to the consumer, then of infra/triggers.yaml."""

from __future__ import annotations

FUNCTION = """\
  # --- triggers: `durably template --update` adds what the code has, here and in infra/triggers.yaml ------------------

  Triggers: # starts and signals what arrives from outside asks for
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: makefile }
    Properties:
      Handler: triggers.handler
      Policies:
        - !GetAtt Storage.Outputs.Use
        - !GetAtt Storage.Outputs.TakeBack
        - !GetAtt Schedules.Outputs.Use
        - !Ref SendMessages
        # durably template: trigger queues
        # durably template: end

  TriggersQueue: # its dead letters wait for somebody to look at them, and an alarm says so
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/queue.yaml
      Parameters: { VisibilityTimeout: 60 }

  TriggersConsumer:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/consumer.yaml
      Parameters:
        Function: !Ref Triggers
        Queue: !GetAtt TriggersQueue.Outputs.Arn
        DeadLetters: !GetAtt TriggersQueue.Outputs.DeadLettersArn
        AlarmTopic: !Ref AlarmTopic

  TriggersSources:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/triggers.yaml
      Parameters:
        HttpApi: !Ref HttpApi
        Function: !GetAtt Triggers.Arn
        Queue: !GetAtt TriggersQueue.Outputs.Arn
        QueueUrl: !GetAtt TriggersQueue.Outputs.Url
        # durably template: trigger sources
        # durably template: end
"""

BUCKET = """\
  {name}Bucket: # whose objects {variable} is told of
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/bucket.yaml
      Parameters: {{ Name: !Ref {name}BucketName }}
"""

QUEUE = """\
  {name}Queue: # {place}
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/queue.yaml
      Parameters: {{ VisibilityTimeout: 60{given} }}
"""

CONSUMER = """\
  {name}Consumer:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/consumer.yaml
      Parameters:
        Function: !Ref Triggers
        Queue: !GetAtt {name}Queue.Outputs.Arn
        DeadLetters: !GetAtt {name}Queue.Outputs.DeadLettersArn
        AlarmTopic: !Ref AlarmTopic
"""

SOURCES = """\
AWSTemplateFormatVersion: "2010-09-09"
Description: Where triggers come from. `durably template --update` adds what the code has and this file lacks.

Parameters:
  HttpApi:
    Type: String
    Description: Id of the API.
  Function:
    Type: String
    Description: ARN of the function.
  Queue:
    Type: String
    Description: ARN of the queue that it consumes.
  QueueUrl:
    Type: String
    Description: URL of that queue.

Resources:
  Delivery: # who may put messages into the queue
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref QueueUrl]
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: { Service: [events.amazonaws.com, sns.amazonaws.com] }
            Action: sqs:SendMessage
            Resource: !Ref Queue
            Condition:
              ArnEquals:
                aws:SourceArn:
                  - !Ref Queue # nobody: a list must not be empty
                  # durably template: senders
                  # durably template: end
"""

RULE = """\
  {name}Rule: # {place}
    Type: AWS::Events::Rule
    Properties:
{bus}      EventPattern:
{pattern}      Targets: [{{ Id: queue, Arn: !Ref Queue }}]
"""

SUBSCRIPTION = """\
  {name}Subscription: # {place}
    Type: AWS::SNS::Subscription
    Properties:
      TopicArn: !Ref {name}Topic
      Protocol: sqs
      Endpoint: !Ref Queue
"""

INTEGRATION = """\
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref HttpApi
      IntegrationType: AWS_PROXY
      IntegrationUri: !Ref Function
      PayloadFormatVersion: "2.0"
      TimeoutInMillis: 11000
"""

ROUTE = """\
  {name}Route: # {place}
    Type: AWS::ApiGatewayV2::Route
    Properties:
      ApiId: !Ref HttpApi
      RouteKey: {route}
      Target: !Sub integrations/${{Integration}}
      AuthorizationType: AWS_IAM
"""

PERMISSION = """\
  {name}Permission:
    Type: AWS::Lambda::Permission
    Properties:
      FunctionName: !Ref Function
      Action: lambda:InvokeFunction
      Principal: apigateway.amazonaws.com
      SourceArn: !Sub >-
        arn:${{AWS::Partition}}:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{HttpApi}}/*/{request}
"""

SCHEDULE_GROUP = """\
  ScheduleGroup:
    Type: AWS::Scheduler::ScheduleGroup
"""

SCHEDULE_ROLE = """\
  ScheduleRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: { Service: scheduler.amazonaws.com }
            Action: sts:AssumeRole
            Condition: { StringEquals: { aws:SourceAccount: !Ref AWS::AccountId } }
      Policies:
        - PolicyName: send
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - { Effect: Allow, Action: sqs:SendMessage, Resource: !Ref Queue }
"""

SCHEDULE = """\
  {name}Schedule: # {place}
    Type: AWS::Scheduler::Schedule
    Properties:
      Name: {rule}
      GroupName: !Ref ScheduleGroup
      ScheduleExpression: !Ref {name}Expression
      FlexibleTimeWindow: {{ Mode: "OFF" }}
      Target: {{ Arn: !Ref Queue, RoleArn: !GetAtt ScheduleRole.Arn }}
"""
