"""The files of jobs in a deployment's bucket, and the rows of the database that refer to them."""
