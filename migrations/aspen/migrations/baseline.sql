-- The tables of the live service at its last revision, and their initial rows.
-- Frozen: a later change of the schema is a revision of its own. Each statement ends with a semicolon
-- at the end of a line.

CREATE TABLE aspen.accession_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_accession_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.accession_types (item_id) VALUES ('GENBANK');
INSERT INTO aspen.accession_types (item_id) VALUES ('GISAID_ISL');

CREATE TABLE aspen.entity_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_entity_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.entity_types (item_id) VALUES ('ALIGNED_GISAID_DUMP');
INSERT INTO aspen.entity_types (item_id) VALUES ('ALIGNED_PATHOGEN_GENOME');
INSERT INTO aspen.entity_types (item_id) VALUES ('ALIGNED_PUBLIC_REPOSITORY_DATA');
INSERT INTO aspen.entity_types (item_id) VALUES ('PHYLO_TREE');
INSERT INTO aspen.entity_types (item_id) VALUES ('PROCESSED_GISAID_DUMP');
INSERT INTO aspen.entity_types (item_id) VALUES ('PROCESSED_PUBLIC_REPOSITORY_DATA');
INSERT INTO aspen.entity_types (item_id) VALUES ('RAW_GISAID_DUMP');
INSERT INTO aspen.entity_types (item_id) VALUES ('RAW_PUBLIC_REPOSITORY_DATA');
INSERT INTO aspen.entity_types (item_id) VALUES ('UPLOADED_PATHOGEN_GENOME');

CREATE TABLE aspen.lineage_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_lineage_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.lineage_types (item_id) VALUES ('NEXTCLADE');
INSERT INTO aspen.lineage_types (item_id) VALUES ('PANGOLIN');

CREATE TABLE aspen.mutations_callers (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_mutations_callers PRIMARY KEY (item_id)
);

INSERT INTO aspen.mutations_callers (item_id) VALUES ('NEXTCLADE');

CREATE TABLE aspen.qc_metric_callers (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_qc_metric_callers PRIMARY KEY (item_id)
);

INSERT INTO aspen.qc_metric_callers (item_id) VALUES ('NEXTCLADE');

CREATE TABLE aspen.tree_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_tree_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.tree_types (item_id) VALUES ('NON_CONTEXTUALIZED');
INSERT INTO aspen.tree_types (item_id) VALUES ('OVERVIEW');
INSERT INTO aspen.tree_types (item_id) VALUES ('TARGETED');
INSERT INTO aspen.tree_types (item_id) VALUES ('UNKNOWN');

CREATE TABLE aspen.workflow_status_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_workflow_status_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.workflow_status_types (item_id) VALUES ('COMPLETED');
INSERT INTO aspen.workflow_status_types (item_id) VALUES ('FAILED');
INSERT INTO aspen.workflow_status_types (item_id) VALUES ('STARTED');

CREATE TABLE aspen.workflow_types (
    item_id VARCHAR NOT NULL,
    CONSTRAINT pk_workflow_types PRIMARY KEY (item_id)
);

INSERT INTO aspen.workflow_types (item_id) VALUES ('ALIGN_GISAID_DUMP');
INSERT INTO aspen.workflow_types (item_id) VALUES ('ALIGN_PUBLIC_REPOSITORY_DATA');
INSERT INTO aspen.workflow_types (item_id) VALUES ('DOWNLOAD_PUBLIC_REPOSITORY_DATA');
INSERT INTO aspen.workflow_types (item_id) VALUES ('PHYLO_RUN');
INSERT INTO aspen.workflow_types (item_id) VALUES ('PROCESS_GISAID_DUMP');

CREATE TABLE aspen.locations (
    id SERIAL NOT NULL,
    region VARCHAR,
    country VARCHAR,
    division VARCHAR,
    location VARCHAR,
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    CONSTRAINT pk_locations PRIMARY KEY (id),
    CONSTRAINT uq_locations_cols UNIQUE (region, country, division, location)
);

CREATE TABLE aspen.pathogens (
    id SERIAL NOT NULL,
    slug VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    nextclade_dataset_name VARCHAR,
    CONSTRAINT pk_pathogens PRIMARY KEY (id),
    CONSTRAINT uq_pathogens_name UNIQUE (name),
    CONSTRAINT uq_pathogens_slug UNIQUE (slug)
);

CREATE TABLE aspen.public_repositories (
    id SERIAL NOT NULL,
    name VARCHAR NOT NULL,
    CONSTRAINT pk_public_repositories PRIMARY KEY (id),
    CONSTRAINT uq_public_repositories_name UNIQUE (name)
);

CREATE TABLE aspen.pathogen_repo_configs (
    id SERIAL NOT NULL,
    prefix VARCHAR NOT NULL,
    public_repository_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    CONSTRAINT pk_pathogen_repo_configs PRIMARY KEY (id),
    CONSTRAINT uq_pathogen_repo_configs_public_repository_id_pathogen_id UNIQUE (public_repository_id, pathogen_id),
    CONSTRAINT fk_pathogen_repo_configs_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_pathogen_repo_configs_public_repository_id_public_re_35fe FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id)
);

CREATE TABLE aspen.pango_lineages (
    id SERIAL NOT NULL,
    lineage VARCHAR NOT NULL,
    CONSTRAINT pk_pango_lineages PRIMARY KEY (id),
    CONSTRAINT uq_pango_lineages_lineage UNIQUE (lineage)
);

CREATE TABLE aspen.pathogen_lineages (
    pathogen_id INTEGER NOT NULL,
    lineage VARCHAR NOT NULL,
    CONSTRAINT pk_pathogen_lineages PRIMARY KEY (pathogen_id, lineage),
    CONSTRAINT fk_pathogen_lineages_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id)
);

CREATE TABLE aspen.usher_options (
    id SERIAL NOT NULL,
    description VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    priority INTEGER,
    pathogen_id INTEGER NOT NULL,
    CONSTRAINT pk_usher_options PRIMARY KEY (id),
    CONSTRAINT uq_usher_options_description UNIQUE (description),
    CONSTRAINT uq_usher_options_pathogen_id_priority UNIQUE (pathogen_id, priority),
    CONSTRAINT uq_usher_options_value UNIQUE (value),
    CONSTRAINT fk_usher_options_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id)
);

CREATE TABLE aspen.gisaid_metadata (
    strain VARCHAR NOT NULL,
    pango_lineage VARCHAR,
    gisaid_clade VARCHAR,
    date TIMESTAMP WITHOUT TIME ZONE,
    region VARCHAR,
    division VARCHAR,
    location VARCHAR,
    gisaid_epi_isl VARCHAR,
    country VARCHAR,
    CONSTRAINT pk_gisaid_metadata PRIMARY KEY (strain)
);

CREATE TABLE aspen.public_repository_metadata (
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    strain VARCHAR NOT NULL,
    lineage VARCHAR,
    isl VARCHAR,
    date TIMESTAMP WITHOUT TIME ZONE,
    region VARCHAR,
    country VARCHAR,
    division VARCHAR,
    location VARCHAR,
    CONSTRAINT pk_public_repository_metadata PRIMARY KEY (pathogen_id, strain, public_repository_id),
    CONSTRAINT fk_public_repository_metadata_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_public_repository_metadata_public_repository_id_publ_ec4a FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id)
);

CREATE TABLE aspen.roles (
    id SERIAL NOT NULL,
    name VARCHAR NOT NULL,
    CONSTRAINT roles_pkey PRIMARY KEY (id),
    CONSTRAINT uq_roles_name UNIQUE (name)
);

CREATE TABLE aspen.users (
    id SERIAL NOT NULL,
    name VARCHAR NOT NULL,
    email VARCHAR NOT NULL,
    auth0_user_id VARCHAR NOT NULL,
    system_admin BOOLEAN NOT NULL,
    agreed_to_tos BOOLEAN NOT NULL,
    acknowledged_policy_version DATE,
    split_id VARCHAR,
    analytics_id VARCHAR NOT NULL,
    gisaid_submitter_id VARCHAR,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now(),
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT uq_users_analytics_id UNIQUE (analytics_id),
    CONSTRAINT uq_users_auth0_user_id UNIQUE (auth0_user_id),
    CONSTRAINT uq_users_email UNIQUE (email)
);

CREATE UNIQUE INDEX uq_users_split_id ON aspen.users (split_id);

CREATE TABLE aspen.groups (
    id SERIAL NOT NULL,
    name VARCHAR NOT NULL,
    address VARCHAR,
    prefix VARCHAR NOT NULL,
    division VARCHAR,
    location VARCHAR,
    default_tree_location_id INTEGER NOT NULL,
    tree_parameters JSONB DEFAULT '{}'::jsonb,
    auth0_org_id VARCHAR NOT NULL,
    submitting_lab VARCHAR,
    CONSTRAINT pk_groups PRIMARY KEY (id),
    CONSTRAINT uq_groups_auth0_org_id UNIQUE (auth0_org_id),
    CONSTRAINT uq_groups_name UNIQUE (name),
    CONSTRAINT uq_groups_prefix UNIQUE (prefix),
    CONSTRAINT fk_groups_default_tree_locations FOREIGN KEY(default_tree_location_id) REFERENCES aspen.locations (id)
);

CREATE TABLE aspen.user_roles (
    role_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    group_id INTEGER NOT NULL,
    CONSTRAINT user_roles_pkey PRIMARY KEY (role_id, user_id, group_id),
    CONSTRAINT uq_user_roles_user_group_role UNIQUE (user_id, group_id, role_id),
    CONSTRAINT user_roles_group_id_fkey FOREIGN KEY(group_id) REFERENCES aspen.groups (id),
    CONSTRAINT user_roles_role_id_fkey FOREIGN KEY(role_id) REFERENCES aspen.roles (id),
    CONSTRAINT user_roles_user_id_fkey FOREIGN KEY(user_id) REFERENCES aspen.users (id)
);

CREATE INDEX ix_aspen_user_roles_group_id ON aspen.user_roles (group_id);

CREATE INDEX ix_aspen_user_roles_role_id ON aspen.user_roles (role_id);

CREATE INDEX ix_aspen_user_roles_user_id ON aspen.user_roles (user_id);

CREATE TABLE aspen.group_roles (
    role_id INTEGER NOT NULL,
    grantor_group_id INTEGER NOT NULL,
    grantee_group_id INTEGER NOT NULL,
    CONSTRAINT group_roles_pkey PRIMARY KEY (role_id, grantor_group_id, grantee_group_id),
    CONSTRAINT uq_group_roles_grantee_grantor_role UNIQUE (grantee_group_id, grantor_group_id, role_id),
    CONSTRAINT group_roles_grantee_group_id_fkey FOREIGN KEY(grantee_group_id) REFERENCES aspen.groups (id),
    CONSTRAINT group_roles_grantor_group_id_fkey FOREIGN KEY(grantor_group_id) REFERENCES aspen.groups (id),
    CONSTRAINT group_roles_role_id_fkey FOREIGN KEY(role_id) REFERENCES aspen.roles (id)
);

CREATE INDEX ix_aspen_group_roles_grantee_group_id ON aspen.group_roles (grantee_group_id);

CREATE INDEX ix_aspen_group_roles_grantor_group_id ON aspen.group_roles (grantor_group_id);

CREATE INDEX ix_aspen_group_roles_role_id ON aspen.group_roles (role_id);

CREATE TABLE aspen.samples (
    id SERIAL NOT NULL,
    submitting_group_id INTEGER NOT NULL,
    private_identifier VARCHAR NOT NULL,
    original_submission JSON NOT NULL,
    public_identifier VARCHAR NOT NULL,
    sample_collected_by VARCHAR NOT NULL,
    sample_collector_contact_email VARCHAR,
    sample_collector_contact_address VARCHAR,
    authors JSONB DEFAULT '[]'::jsonb NOT NULL,
    collection_date DATE NOT NULL,
    organism VARCHAR NOT NULL,
    host VARCHAR,
    purpose_of_sampling VARCHAR,
    specimen_processing VARCHAR,
    private BOOLEAN NOT NULL,
    uploaded_by_id INTEGER NOT NULL,
    location_id INTEGER,
    pathogen_id INTEGER NOT NULL,
    CONSTRAINT pk_samples PRIMARY KEY (id),
    CONSTRAINT uq_samples_submitting_group_id_private_identifier UNIQUE (submitting_group_id, private_identifier),
    CONSTRAINT uq_samples_submitting_group_id_public_identifier UNIQUE (submitting_group_id, public_identifier),
    CONSTRAINT fk_samples_locations FOREIGN KEY(location_id) REFERENCES aspen.locations (id),
    CONSTRAINT fk_samples_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_samples_submitting_group_id_groups FOREIGN KEY(submitting_group_id) REFERENCES aspen.groups (id),
    CONSTRAINT fk_samples_uploaded_by_id_users FOREIGN KEY(uploaded_by_id) REFERENCES aspen.users (id)
);

CREATE TABLE aspen.accessions (
    sample_id INTEGER NOT NULL,
    accession_type VARCHAR NOT NULL,
    accession VARCHAR NOT NULL,
    CONSTRAINT uq_accessions_sample_id_accession_type UNIQUE (sample_id, accession_type),
    CONSTRAINT fk_accessions_accession_type_accession_types FOREIGN KEY(accession_type) REFERENCES aspen.accession_types (item_id),
    CONSTRAINT fk_accessions_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.sample_lineages (
    id SERIAL NOT NULL,
    sample_id INTEGER,
    lineage_type VARCHAR NOT NULL,
    lineage_software_version VARCHAR NOT NULL,
    lineage VARCHAR NOT NULL,
    lineage_probability DOUBLE PRECISION,
    raw_lineage_output JSONB,
    reference_dataset_name VARCHAR,
    reference_sequence_accession VARCHAR,
    reference_dataset_tag VARCHAR,
    last_updated TIMESTAMP WITHOUT TIME ZONE,
    CONSTRAINT pk_sample_lineages PRIMARY KEY (id),
    CONSTRAINT uq_sample_lineages_sample_id_lineage_type UNIQUE (sample_id, lineage_type),
    CONSTRAINT fk_sample_lineages_lineage_type_lineage_types FOREIGN KEY(lineage_type) REFERENCES aspen.lineage_types (item_id),
    CONSTRAINT fk_sample_lineages_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.sample_qc_metrics (
    id SERIAL NOT NULL,
    sample_id INTEGER NOT NULL,
    qc_score VARCHAR,
    qc_software_version VARCHAR NOT NULL,
    qc_status VARCHAR NOT NULL,
    raw_qc_output JSONB,
    reference_dataset_name VARCHAR,
    reference_sequence_accession VARCHAR,
    reference_dataset_tag VARCHAR,
    qc_caller VARCHAR NOT NULL,
    CONSTRAINT pk_sample_qc_metrics PRIMARY KEY (id),
    CONSTRAINT uq_sample_qc_metrics_sample_id UNIQUE (sample_id),
    CONSTRAINT uq_sample_qc_metrics_sample_id_qc_caller UNIQUE (sample_id, qc_caller),
    CONSTRAINT fk_sample_qc_metrics_qc_caller_qc_metric_callers FOREIGN KEY(qc_caller) REFERENCES aspen.qc_metric_callers (item_id),
    CONSTRAINT fk_sample_qc_metrics_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.sample_mutations (
    id SERIAL NOT NULL,
    sample_id INTEGER NOT NULL,
    substitutions VARCHAR,
    insertions VARCHAR,
    deletions VARCHAR,
    aa_substitutions VARCHAR,
    aa_insertions VARCHAR,
    aa_deletions VARCHAR,
    reference_sequence_accession VARCHAR,
    mutations_caller VARCHAR NOT NULL,
    CONSTRAINT pk_sample_mutations PRIMARY KEY (id),
    CONSTRAINT uq_sample_mutations_sample_id UNIQUE (sample_id),
    CONSTRAINT uq_sample_mutations_sample_id_mutations_caller UNIQUE (sample_id, mutations_caller),
    CONSTRAINT fk_sample_mutations_mutations_caller_mutations_callers FOREIGN KEY(mutations_caller) REFERENCES aspen.mutations_callers (item_id),
    CONSTRAINT fk_sample_mutations_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.aligned_peptides (
    id INTEGER NOT NULL,
    sample_id INTEGER,
    s3_bucket VARCHAR NOT NULL,
    s3_key VARCHAR NOT NULL,
    CONSTRAINT uq_aligned_peptides_s3_bucket_key UNIQUE (s3_bucket, s3_key),
    CONSTRAINT fk_aligned_peptides_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.workflows (
    id SERIAL NOT NULL,
    workflow_type VARCHAR NOT NULL,
    software_versions JSON NOT NULL,
    end_datetime TIMESTAMP WITHOUT TIME ZONE,
    start_datetime TIMESTAMP WITHOUT TIME ZONE,
    workflow_status VARCHAR NOT NULL,
    user_id INTEGER,
    CONSTRAINT pk_workflows PRIMARY KEY (id),
    CONSTRAINT fk_workflows_user_id FOREIGN KEY(user_id) REFERENCES aspen.users (id),
    CONSTRAINT fk_workflows_workflow_status_workflow_status_types FOREIGN KEY(workflow_status) REFERENCES aspen.workflow_status_types (item_id),
    CONSTRAINT fk_workflows_workflow_type_workflow_types FOREIGN KEY(workflow_type) REFERENCES aspen.workflow_types (item_id)
);

CREATE TABLE aspen.entities (
    id SERIAL NOT NULL,
    entity_type VARCHAR NOT NULL,
    producing_workflow_id INTEGER,
    group_id INTEGER,
    CONSTRAINT pk_entities PRIMARY KEY (id),
    CONSTRAINT fk_entities_entity_type_entity_types FOREIGN KEY(entity_type) REFERENCES aspen.entity_types (item_id),
    CONSTRAINT fk_entities_group_id_groups FOREIGN KEY(group_id) REFERENCES aspen.groups (id),
    CONSTRAINT fk_entities_producing_workflow_id_workflows FOREIGN KEY(producing_workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.workflow_inputs (
    entity_id INTEGER NOT NULL,
    workflow_id INTEGER NOT NULL,
    CONSTRAINT pk_workflow_inputs PRIMARY KEY (entity_id, workflow_id),
    CONSTRAINT fk_workflow_inputs_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id),
    CONSTRAINT fk_workflow_inputs_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.gisaid_workflows (
    workflow_id INTEGER NOT NULL,
    CONSTRAINT pk_gisaid_workflows PRIMARY KEY (workflow_id),
    CONSTRAINT fk_gisaid_workflows_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.gisaid_alignment_workflows (
    workflow_id INTEGER NOT NULL,
    CONSTRAINT pk_gisaid_alignment_workflows PRIMARY KEY (workflow_id),
    CONSTRAINT fk_gisaid_alignment_workflows_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.repository_download_workflows (
    workflow_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    CONSTRAINT pk_repository_download_workflows PRIMARY KEY (workflow_id),
    CONSTRAINT fk_repository_download_workflows_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_repository_download_workflows_public_repository_id_p_4ab3 FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id),
    CONSTRAINT fk_repository_download_workflows_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.repository_alignment_workflows (
    workflow_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    CONSTRAINT pk_repository_alignment_workflows PRIMARY KEY (workflow_id),
    CONSTRAINT fk_repository_alignment_workflows_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_repository_alignment_workflows_public_repository_id__6ed2 FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id),
    CONSTRAINT fk_repository_alignment_workflows_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.phylo_runs (
    workflow_id INTEGER NOT NULL,
    group_id INTEGER NOT NULL,
    template_args JSONB DEFAULT '{}'::jsonb NOT NULL,
    template_file_path VARCHAR,
    name VARCHAR,
    gisaid_ids JSONB DEFAULT '[]'::jsonb NOT NULL,
    tree_type VARCHAR DEFAULT 'UNKNOWN'::character varying NOT NULL,
    pathogen_id INTEGER NOT NULL,
    contextual_repository_id INTEGER NOT NULL,
    CONSTRAINT pk_phylo_runs PRIMARY KEY (workflow_id),
    CONSTRAINT fk_phylo_runs_contextual_repository_id_public_repositories FOREIGN KEY(contextual_repository_id) REFERENCES aspen.public_repositories (id),
    CONSTRAINT fk_phylo_runs_group_id_groups FOREIGN KEY(group_id) REFERENCES aspen.groups (id),
    CONSTRAINT fk_phylo_runs_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_phylo_runs_tree_type_tree_types FOREIGN KEY(tree_type) REFERENCES aspen.tree_types (item_id),
    CONSTRAINT fk_phylo_runs_workflow_id_workflows FOREIGN KEY(workflow_id) REFERENCES aspen.workflows (id)
);

CREATE TABLE aspen.pathogen_genomes (
    entity_id INTEGER NOT NULL,
    sequence VARCHAR NOT NULL,
    num_unambiguous_sites INTEGER NOT NULL,
    num_missing_alleles INTEGER NOT NULL,
    num_mixed INTEGER NOT NULL,
    sequencing_date DATE,
    CONSTRAINT pk_pathogen_genomes PRIMARY KEY (entity_id),
    CONSTRAINT fk_pathogen_genomes_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id)
);

CREATE TABLE aspen.uploaded_pathogen_genomes (
    pathogen_genome_id INTEGER NOT NULL,
    sequencing_depth DOUBLE PRECISION,
    sample_id INTEGER NOT NULL,
    upload_date TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_uploaded_pathogen_genomes PRIMARY KEY (pathogen_genome_id),
    CONSTRAINT uq_uploaded_pathogen_genomes_sample_id UNIQUE (sample_id),
    CONSTRAINT fk_uploaded_pathogen_genomes_pathogen_genome_id_pathoge_d57a FOREIGN KEY(pathogen_genome_id) REFERENCES aspen.pathogen_genomes (entity_id),
    CONSTRAINT fk_uploaded_pathogen_genomes_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.aligned_pathogen_genome (
    pathogen_genome_id INTEGER NOT NULL,
    sample_id INTEGER NOT NULL,
    aligned_date TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL,
    reference_name VARCHAR NOT NULL,
    CONSTRAINT pk_aligned_pathogen_genome PRIMARY KEY (pathogen_genome_id),
    CONSTRAINT uq_aligned_pathogen_genome_sample_id UNIQUE (sample_id),
    CONSTRAINT fk_aligned_pathogen_genome_pathogen_genome_id_pathogen_genomes FOREIGN KEY(pathogen_genome_id) REFERENCES aspen.pathogen_genomes (entity_id),
    CONSTRAINT fk_aligned_pathogen_genome_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.phylo_trees (
    entity_id INTEGER NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    s3_key VARCHAR NOT NULL,
    name VARCHAR,
    tree_type VARCHAR DEFAULT 'UNKNOWN'::character varying NOT NULL,
    pathogen_id INTEGER NOT NULL,
    resolved_template_args JSONB,
    contextual_repository_id INTEGER NOT NULL,
    CONSTRAINT pk_phylo_trees PRIMARY KEY (entity_id),
    CONSTRAINT uq_phylo_trees_s3_bucket_s3_key UNIQUE (s3_bucket, s3_key),
    CONSTRAINT fk_phylo_trees_contextual_repository_id_public_repositories FOREIGN KEY(contextual_repository_id) REFERENCES aspen.public_repositories (id),
    CONSTRAINT fk_phylo_trees_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id),
    CONSTRAINT fk_phylo_trees_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_phylo_trees_tree_type_tree_types FOREIGN KEY(tree_type) REFERENCES aspen.tree_types (item_id)
);

CREATE TABLE aspen.phylo_tree_samples (
    sample_id INTEGER NOT NULL,
    phylo_tree_id INTEGER NOT NULL,
    CONSTRAINT pk_phylo_tree_samples PRIMARY KEY (sample_id, phylo_tree_id),
    CONSTRAINT fk_phylo_tree_samples_phylo_tree_id_phylo_trees FOREIGN KEY(phylo_tree_id) REFERENCES aspen.phylo_trees (entity_id),
    CONSTRAINT fk_phylo_tree_samples_sample_id_samples FOREIGN KEY(sample_id) REFERENCES aspen.samples (id)
);

CREATE TABLE aspen.raw_gisaid_dump (
    entity_id INTEGER NOT NULL,
    download_date TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_raw_gisaid_dump PRIMARY KEY (entity_id),
    CONSTRAINT uq_raw_gisaid_dump_s3_bucket_s3_key UNIQUE (s3_bucket, s3_key),
    CONSTRAINT fk_raw_gisaid_dump_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id)
);

CREATE TABLE aspen.processed_gisaid_dump (
    entity_id INTEGER NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    metadata_s3_key VARCHAR NOT NULL,
    sequences_s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_processed_gisaid_dump PRIMARY KEY (entity_id),
    CONSTRAINT uq_processed_gisaid_dump_s3_bucket_key UNIQUE (s3_bucket, metadata_s3_key),
    CONSTRAINT uq_processed_gisaid_dump_s3_bucket_sequences UNIQUE (s3_bucket, sequences_s3_key),
    CONSTRAINT fk_processed_gisaid_dump_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id)
);

CREATE TABLE aspen.aligned_gisaid_dump (
    entity_id INTEGER NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    sequences_s3_key VARCHAR NOT NULL,
    metadata_s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_aligned_gisaid_dump PRIMARY KEY (entity_id),
    CONSTRAINT uq_aligned_gisaid_dump_s3_bucket_key UNIQUE (s3_bucket, metadata_s3_key),
    CONSTRAINT uq_aligned_gisaid_dump_s3_bucket_sequences UNIQUE (s3_bucket, sequences_s3_key),
    CONSTRAINT fk_aligned_gisaid_dump_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id)
);

CREATE TABLE aspen.raw_repository_data (
    entity_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    download_date TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_raw_repository_data PRIMARY KEY (entity_id),
    CONSTRAINT uq_raw_repository_data_s3_bucket_s3_key UNIQUE (s3_bucket, s3_key),
    CONSTRAINT fk_raw_repository_data_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id),
    CONSTRAINT fk_raw_repository_data_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_raw_repository_data_public_repository_id_public_repositories FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id)
);

CREATE TABLE aspen.processed_repository_data (
    entity_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    sequences_s3_key VARCHAR NOT NULL,
    metadata_s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_processed_repository_data PRIMARY KEY (entity_id),
    CONSTRAINT uq_processed_repository_data_s3_bucket_metadata_s3_key UNIQUE (s3_bucket, metadata_s3_key),
    CONSTRAINT uq_processed_repository_data_s3_bucket_sequences_s3_key UNIQUE (s3_bucket, sequences_s3_key),
    CONSTRAINT fk_processed_repository_data_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id),
    CONSTRAINT fk_processed_repository_data_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_processed_repository_data_public_repository_id_publi_6259 FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id)
);

CREATE TABLE aspen.aligned_repository_data (
    entity_id INTEGER NOT NULL,
    pathogen_id INTEGER NOT NULL,
    public_repository_id INTEGER NOT NULL,
    s3_bucket VARCHAR NOT NULL,
    sequences_s3_key VARCHAR NOT NULL,
    metadata_s3_key VARCHAR NOT NULL,
    CONSTRAINT pk_aligned_repository_data PRIMARY KEY (entity_id),
    CONSTRAINT uq_aligned_repository_data_s3_bucket_metadata_s3_key UNIQUE (s3_bucket, metadata_s3_key),
    CONSTRAINT uq_aligned_repository_data_s3_bucket_sequences_s3_key UNIQUE (s3_bucket, sequences_s3_key),
    CONSTRAINT fk_aligned_repository_data_entity_id_entities FOREIGN KEY(entity_id) REFERENCES aspen.entities (id),
    CONSTRAINT fk_aligned_repository_data_pathogen_id_pathogens FOREIGN KEY(pathogen_id) REFERENCES aspen.pathogens (id),
    CONSTRAINT fk_aligned_repository_data_public_repository_id_public__c31b FOREIGN KEY(public_repository_id) REFERENCES aspen.public_repositories (id)
);

INSERT INTO aspen.roles (id, name) VALUES (1, 'admin');
INSERT INTO aspen.roles (id, name) VALUES (2, 'viewer');
INSERT INTO aspen.roles (id, name) VALUES (3, 'member');

SELECT pg_catalog.setval('aspen.roles_id_seq', 3);

INSERT INTO aspen.pathogens (id, slug, name, nextclade_dataset_name) VALUES (1, 'SC2', 'SARS-CoV-2', 'sars-cov-2');
INSERT INTO aspen.pathogens (id, slug, name, nextclade_dataset_name) VALUES (2, 'MPX', 'Monkeypox', 'hMPXV');
INSERT INTO aspen.pathogens (id, slug, name, nextclade_dataset_name) VALUES (3, 'HCV', 'Hepatitis C', NULL);

SELECT pg_catalog.setval('aspen.pathogens_id_seq', 3);

INSERT INTO aspen.public_repositories (id, name) VALUES (1, 'GISAID');
INSERT INTO aspen.public_repositories (id, name) VALUES (2, 'GenBank');

SELECT pg_catalog.setval('aspen.public_repositories_id_seq', 2);

INSERT INTO aspen.pathogen_repo_configs (id, prefix, public_repository_id, pathogen_id) VALUES (1, 'hCoV-19', 1, 1);
INSERT INTO aspen.pathogen_repo_configs (id, prefix, public_repository_id, pathogen_id) VALUES (2, 'SARS-CoV-2/human', 2, 1);
INSERT INTO aspen.pathogen_repo_configs (id, prefix, public_repository_id, pathogen_id) VALUES (4, 'hcv', 2, 3);
INSERT INTO aspen.pathogen_repo_configs (id, prefix, public_repository_id, pathogen_id) VALUES (5, 'MPXV', 2, 2);

SELECT pg_catalog.setval('aspen.pathogen_repo_configs_id_seq', 5);
