//! Who may call which method. A method that is not in the table is answered by nobody.

use super::scope::Scope;

/// What a method asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: probes have no credentials.
    Anybody,
    /// That it is known who calls.
    Known,
    /// A scope.
    Scope(Scope),
}

/// The name of the method at `path`, without the first slash; a label that only known methods have.
pub(crate) fn known(path: &str) -> Option<&'static str> {
    METHODS.iter().find(|(known, _)| *known == path).map(|(known, _)| known.trim_start_matches('/'))
}

const METHODS: &[(&str, Access)] = &[
    ("/grpc.health.v1.Health/Check", Access::Anybody),
    ("/grpc.health.v1.Health/Watch", Access::Anybody),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Known),
    ("/zkinfer.v1.SystemService/GetServerInfo", Access::Known),
    ("/zkinfer.v1.ModelService/CreateModel", Access::Scope(Scope::ModelsWrite)),
    ("/zkinfer.v1.ModelService/DeleteModel", Access::Scope(Scope::ModelsWrite)),
    ("/zkinfer.v1.ModelService/GetModel", Access::Scope(Scope::ModelsRead)),
    ("/zkinfer.v1.ModelService/ListModels", Access::Scope(Scope::ModelsRead)),
    ("/zkinfer.v1.ModelService/WatchModel", Access::Scope(Scope::ModelsRead)),
    ("/zkinfer.v1.ArtifactService/BeginUpload", Access::Scope(Scope::ArtifactsWrite)),
    ("/zkinfer.v1.ArtifactService/WriteChunks", Access::Scope(Scope::ArtifactsWrite)),
    ("/zkinfer.v1.ArtifactService/GetUpload", Access::Scope(Scope::ArtifactsWrite)),
    ("/zkinfer.v1.ArtifactService/GetArtifact", Access::Scope(Scope::ArtifactsRead)),
    ("/zkinfer.v1.ArtifactService/ReadArtifact", Access::Scope(Scope::ArtifactsRead)),
    ("/zkinfer.v1.ProofService/CreateJob", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.ProofService/BatchCreateJobs", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.ProofService/CancelJob", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.ProofService/DeleteJob", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.ProofService/EstimateJob", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.ProofService/GetBatch", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/WatchBatch", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/ListJobTasks", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/GetJob", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/ListJobs", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/WaitJob", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/WatchJob", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.ProofService/VerifyProof", Access::Scope(Scope::Verify)),
    ("/zkinfer.v1.WebhookService/CreateWebhook", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.WebhookService/DeleteWebhook", Access::Scope(Scope::JobsCreate)),
    ("/zkinfer.v1.WebhookService/ListWebhooks", Access::Scope(Scope::JobsRead)),
    ("/zkinfer.v1.AdminService/ListWorkers", Access::Scope(Scope::Admin)),
    ("/zkinfer.v1.AdminService/CordonWorker", Access::Scope(Scope::Admin)),
    ("/zkinfer.v1.AdminService/GetQuota", Access::Scope(Scope::Admin)),
    ("/zkinfer.v1.AdminService/SetQuota", Access::Scope(Scope::Admin)),
    ("/zkinfer.v1.AdminService/GetQueue", Access::Scope(Scope::Admin)),
];

/// What the method at a request's path asks for; `None`: there is no such method.
pub(crate) fn access(path: &str) -> Option<Access> {
    METHODS.iter().find(|(method, _)| *method == path).map(|(_, access)| *access)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The methods of every service that a descriptor set holds.
    fn methods(descriptors: &[u8]) -> Vec<String> {
        let mut methods = Vec::new();
        for file in FileDescriptorSet::decode(descriptors).unwrap().file {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
        assert!(!methods.is_empty());
        methods
    }

    #[test]
    fn every_method_of_every_service_is_in_the_table_once_and_nothing_else_is() {
        let sets =
            [zkinfer_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
        let served: BTreeSet<String> = sets.into_iter().flat_map(methods).collect();
        let listed: BTreeSet<String> = METHODS.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(served, listed);
        assert_eq!(listed.len(), METHODS.len(), "a method is listed twice");
    }

    #[test]
    fn only_probes_are_open_and_what_is_not_listed_is_nothing() {
        for (method, access) in METHODS {
            assert_eq!(*access == Access::Anybody, method.starts_with("/grpc.health.v1.Health/"), "{method}");
        }
        for path in ["", "/", "/zkinfer.v1.ProofService/", "/zkinfer.v1.ProofService/getjob", "/grpc.health.v1.Health/Other"] {
            assert_eq!(access(path), None, "{path}");
        }
    }
}
