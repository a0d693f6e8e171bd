"""The operations of the live service, and the fields that their successes are documented with.

``-`` stands for a success without a schema.
"""

from __future__ import annotations

_RUN = "id,start_datetime,workflow_status,template_args,group,contextual_data_source"
ORG_OPERATIONS = f"""
    POST   auspice/generate -
    GET    auspice/access/{{magic_link}} -
    POST   sequences/ -
    POST   sequences/getfastaurl -
    GET    phylo_trees/{{item_id}}/download -
    GET    phylo_trees/{{item_id}}/sample_ids -
    GET    phylo_runs/ phylo_runs
    POST   phylo_runs/ {_RUN}
    PUT    phylo_runs/{{item_id}} {_RUN}
    DELETE phylo_runs/{{item_id}} id
    POST   qc_mutations/ -
    GET    samples/ samples
    PUT    samples/ samples
    POST   samples/ samples
    DELETE samples/ ids
    DELETE samples/{{sample_id}} id
    POST   samples/validate_ids/ missing_sample_ids
    POST   samples/submission_template -
    GET    usher/tree_versions/ usher_options
"""
"""Operations that exist under both forms of a group's path."""

OPERATIONS = """
    GET    /v2/users/me id,name,split_id,analytics_id,groups
    PUT    /v2/users/me id,name,split_id,analytics_id,groups
    POST   /v2/users/ id,name,split_id,analytics_id,groups
    GET    /v2/health/ -
    GET    /v2/auth/login -
    GET    /v2/auth/callback -
    GET    /v2/auth/process_invitation -
    GET    /v2/auth/logout -
    GET    /v2/lineages/pango lineages
    GET    /v2/locations/ locations
    POST   /v2/locations/search/ -
    POST   /v2/groups/ id,name,prefix,default_tree_location
    GET    /v2/groups/{group_id}/ id,name,prefix,default_tree_location
    GET    /v2/groups/{group_id}/members/ members
    GET    /v2/groups/{group_id}/invitations/ invitations
    POST   /v2/groups/{group_id}/invitations/ invitations
    GET    /v2/pathogens/ pathogens
"""
FORMS = ("/v2/orgs/{org_id}/", "/v2/orgs/{org_id}/pathogens/{pathogen_slug}/")


def operations() -> dict[tuple[str, str], frozenset[str]]:
    """Return the fields that every success has, by method and path; none without a schema."""
    rows = [line.split() for line in OPERATIONS.split("\n") if line.strip()]
    for line in ORG_OPERATIONS.split("\n"):
        if line.strip():
            method, path, fields = line.split()
            rows += [[method, form + path, fields] for form in FORMS]
    return {
        (method, path): frozenset(fields.split(",")) if fields != "-" else frozenset()
        for method, path, fields in rows
    }
