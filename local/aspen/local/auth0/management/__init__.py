"""The part of Auth0's Management API v2 that the service and this tool use.

Formats, statuses, paging, and limits are Auth0's, so that code written for Auth0 runs unchanged.
"""
