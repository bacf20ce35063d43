//! Client certificates: the one name that a certificate gives its holder, and the file that says which tenant it acts for.
//!
//! A line is `PRINCIPAL TENANT scopes=LIST`; the principal is a SPIFFE ID (`spiffe://…`) or, for certificates without one, the subject's
//! common name. Without scopes the holder may do all but administer.

use std::collections::HashMap;
use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Principal;
use super::line::{Line, LineError, check_tenant, parse_lines};

const SPIFFE: &str = "spiffe:";
const FORM: &str = "PRINCIPAL TENANT [scopes=LIST]";

/// The name of the holder of a client certificate, whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientIdentity(String);

impl ClientIdentity {
    /// The SPIFFE ID if the certificate has one, else its common name. `None`: it has several, or none, so that it is not clear whose it is.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let alternatives = certificate.subject_alternative_name().ok()?;
        let names = alternatives.iter().flat_map(|names| &names.value.general_names);
        let uris: Vec<&str> = names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
        if uris.iter().any(|uri| is_spiffe(uri)) {
            // A SPIFFE ID stands alone.
            return if let [uri] = uris[..] { Some(Self(uri.to_owned())) } else { None };
        }
        let mut common_names = certificate.subject().iter_common_name();
        let (Some(name), None) = (common_names.next(), common_names.next()) else { return None };
        let name = name.as_str().ok()?;
        // A common name must not pass for a SPIFFE ID.
        (!name.is_empty() && !is_spiffe(name)).then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_spiffe(name: &str) -> bool {
    name.get(..SPIFFE.len()).is_some_and(|start| start.eq_ignore_ascii_case(SPIFFE))
}

/// Which tenant the holder of a certificate acts for.
#[derive(Debug)]
pub struct CertificateMap(HashMap<String, Principal>);

impl CertificateMap {
    /// Parses the contents of a file.
    ///
    /// # Errors
    /// A line is wrong, or a principal is there twice.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut principals = HashMap::new();
        parse_lines(text, FORM, |line| {
            let Some(line) = Line::<2>::parse(line, &["scopes"])? else { return Ok(None) };
            let [name, tenant] = line.words;
            check_tenant(tenant)?;
            let principal = Principal { tenant: tenant.to_owned(), name: name.to_owned(), scopes: line.scopes()? };
            match principals.insert(name.to_owned(), principal) {
                None => Ok(Some(())),
                Some(_) => Err(format!("{name} is there twice")),
            }
        })?;
        Ok(Self(principals))
    }

    /// Whether there is nobody in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, identity: &ClientIdentity) -> Option<&Principal> {
        self.0.get(&identity.0)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn identity(common_names: &[&str], uris: &[&str]) -> Option<String> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (i, name) in common_names.iter().enumerate() {
            // rcgen keeps one name of a kind; by its number it is another kind, and the same in the certificate.
            let kind = if i == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, *name);
        }
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientIdentity::of(certificate.der()).map(|identity| identity.to_string())
    }

    #[test]
    fn a_spiffe_id_comes_before_the_common_name_and_stands_alone() {
        assert_eq!(identity(&["laptop"], &[]).as_deref(), Some("laptop"));
        assert_eq!(identity(&["laptop"], &["https://acme.example"]).as_deref(), Some("laptop"));
        assert_eq!(identity(&["laptop", "acme"], &[]), None);
        assert_eq!(identity(&["laptop"], &["spiffe://acme/prover"]).as_deref(), Some("spiffe://acme/prover"));
        assert_eq!(identity(&[], &["spiffe://acme/prover"]).as_deref(), Some("spiffe://acme/prover"));
        assert_eq!(identity(&["laptop"], &["spiffe://acme/a", "spiffe://acme/b"]), None);
        assert_eq!(identity(&["laptop"], &["spiffe://acme/a", "https://acme.example"]), None);
    }

    #[test]
    fn a_common_name_does_not_pass_for_a_spiffe_id() {
        assert_eq!(identity(&["spiffe://acme/prover"], &[]), None);
        assert_eq!(identity(&["SPIFFE://acme/prover"], &[]), None);
        assert_eq!(identity(&[], &[]), None);
        assert_eq!(ClientIdentity::of(&CertificateDer::from(vec![0x30, 0x03, 1, 2])), None);
    }

    #[test]
    fn the_file_names_each_principal_once() {
        let map = CertificateMap::parse("spiffe://acme/prover acme scopes=jobs.create\nlaptop umbrella\n").unwrap();
        assert_eq!(map.find(&ClientIdentity("laptop".into())).unwrap().tenant, "umbrella");
        assert_eq!(map.find(&ClientIdentity("spiffe://acme/prover".into())).unwrap().scopes.to_string(), "jobs.create");
        assert!(map.find(&ClientIdentity("nobody".into())).is_none());
        for (text, problem) in [("laptop acme\nlaptop umbrella", "twice"), ("#\nlaptop", "fewer"), ("\nlaptop Acme", "tenant")] {
            let error = CertificateMap::parse(text).unwrap_err();
            assert!(error.line == 2 && error.problem.contains(problem), "{text}: {error}");
        }
    }
}
