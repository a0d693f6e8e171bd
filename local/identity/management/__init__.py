"""The part of Auth0's Management API v2 that the service and the tool use.

Shapes, statuses, paging and limits are Auth0's, so that code written for it runs here unchanged.
"""
