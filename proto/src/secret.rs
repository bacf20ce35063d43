//! Messages that carry salts, seeds, keys, inputs or bytes of artifacts print what they are about, and how much it is, and nothing of it.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::RegisterWork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.model.as_ref().map_or("", |model| model.name.as_str());
        formatter.debug_struct("RegisterWork").field("model", &model).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ProofWork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = self.job.as_ref().map_or("", |job| job.name.as_str());
        formatter.debug_struct("ProofWork").field("job", &job).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("Input");
        fields.field("encoding", &self.encoding());
        match &self.source {
            Some(v1::input::Source::Artifact(name)) => fields.field("artifact", name),
            Some(v1::input::Source::Inline(bytes)) => fields.field("inline_bytes", &bytes.len()),
            None => &mut fields,
        };
        fields.finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateJobRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parent, job, input_salt, request_id } = self;
        let mut fields = formatter.debug_struct("CreateJobRequest");
        fields.field("parent", parent).field("job", job).field("request_id", request_id);
        fields.field("has_input_salt", &!input_salt.is_empty()).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateWebhookResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CreateWebhookResponse").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::WriteChunksRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upload, write_offset, data, crc32c: _ } = self;
        let mut fields = formatter.debug_struct("WriteChunksRequest");
        fields.field("upload", upload).field("write_offset", write_offset).field("data_bytes", &data.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ReadArtifactResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("ReadArtifactResponse");
        fields.field("offset", &self.offset).field("data_bytes", &self.data.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ReadTaskArtifactResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReadTaskArtifactResponse").field("data_bytes", &self.data.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::WriteTaskArtifactRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("WriteTaskArtifactRequest");
        fields.field("lease", &self.lease).field("class", &self.class).field("size_bytes", &self.size_bytes);
        fields.field("data_bytes", &self.data.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_and_seeds_are_not_printed() {
        let register = v1::RegisterWork { model: None, salt: vec![201; 32], seed: vec![202; 32] };
        let proof = v1::ProofWork { input_salt: vec![203; 32], seed: vec![204; 32], private_digest: vec![205; 32], ..Default::default() };
        let step = v1::StepWork { proof: Some(proof.clone()), inputs: Vec::new() };
        let lease = v1::LeasedTask { work: Some(v1::leased_task::Work::Step(step)), ..Default::default() };
        let text = format!("{register:?} {proof:?} {lease:?}");
        assert!(!text.contains("20"), "{text}");
    }

    #[test]
    fn inputs_bytes_of_artifacts_and_keys_are_not_printed() {
        let bytes = vec![201; 33];
        let input = v1::Input { source: Some(v1::input::Source::Inline(bytes.clone())), encoding: v1::input::Encoding::Uint8 as i32 };
        let job = v1::Job { input: Some(input), ..Default::default() };
        let create = v1::CreateJobRequest { job: Some(job), input_salt: bytes.clone(), ..Default::default() };
        let batch = v1::BatchCreateJobsRequest { requests: vec![create], ..Default::default() };
        let webhook = v1::CreateWebhookResponse { webhook: None, secret: "whsec_201".into() };
        let chunk = v1::WriteChunksRequest { data: bytes.clone().into(), crc32c: 201, ..Default::default() };
        let read = v1::ReadArtifactResponse { data: bytes.clone().into(), ..Default::default() };
        let of_task = v1::ReadTaskArtifactResponse { data: bytes.clone().into() };
        let written = v1::WriteTaskArtifactRequest { data: bytes.into(), ..Default::default() };
        let text = format!("{batch:?} {webhook:?} {chunk:?} {read:?} {of_task:?} {written:?}");
        assert!(!text.contains("201") && text.matches("33").count() == 5, "{text}");
    }
}
