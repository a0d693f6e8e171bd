"""The AWS stand-in: S3, Secrets Manager, Parameter Store, and Step Functions on this machine."""
