"""The AWS emulator: S3, Secrets Manager, Parameter Store, and Step Functions on this machine."""
