-- Models are deleted, and jobs that are over outlive them: that a job's model is there is seen to by whoever admits the job, who locks the model's row.
ALTER TABLE jobs DROP CONSTRAINT jobs_tenant_model_id_fkey;
-- Of a model that is to be deleted, those that are not over.
CREATE INDEX jobs_unfinished ON jobs(tenant, model_id, state) WHERE state < 4;

-- Programs before this one do not lock the model of a job that they admit, which could be deleted meanwhile.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (14, 14);
