//! `zkinferd certs`: certificates for tests and first steps. Who has an authority uses that one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

use super::print;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The authority outlives what it signs.
const AUTHORITY_DAYS: u32 = 3650;

#[derive(Debug, Args)]
pub(super) struct CertsArguments {
    /// Where the files are written: ca.pem, server.pem, client.pem, and their private keys ca-key.pem, server-key.pem, client-key.pem. The
    /// directory is made if it is not there; files that are there stay.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Names and addresses that clients reach the service by.
    #[arg(long = "name", value_name = "HOST", num_args = 1.., required = true)]
    names: Vec<String>,
    /// The client's name: a SPIFFE ID (`spiffe://…`), or a common name.
    #[arg(long, value_name = "PRINCIPAL", default_value = "client")]
    client: String,
    /// Days that the certificates of server and client are valid; the authority's is for ten years.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

pub(super) fn certs(arguments: &CertsArguments) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let authority = authority()?;
    let files = Files(&arguments.out);
    files.write("ca", &authority.pem(), authority.key())?;

    let mut server = params("zkinfer server", arguments.days, ExtendedKeyUsagePurpose::ServerAuth);
    server.subject_alt_names = CertificateParams::new(arguments.names.clone()).context("a name is no host")?.subject_alt_names;
    files.signed("server", &server, &authority)?;

    let is_uri = arguments.client.contains("://");
    let mut client = params(if is_uri { "" } else { &arguments.client }, arguments.days, ExtendedKeyUsagePurpose::ClientAuth);
    if is_uri {
        client.subject_alt_names = vec![SanType::URI(arguments.client.as_str().try_into().context("the client's name is no URI")?)];
    }
    files.signed("client", &client, &authority)?;
    print(&format!("certificates and keys are in {}; keep the keys, ca-key.pem above all, to yourself", arguments.out.display()))
}

fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("zkinfer test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn params(name: &str, days: u32, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, days);
    params
}

/// From an hour ago, for clocks that are behind.
fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + DAY * days).into();
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if !common_name.is_empty() {
        name.push(DnType::CommonName, common_name);
    }
    name
}

/// The directory of the files.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn signed(&self, name: &str, params: &CertificateParams, authority: &CertifiedIssuer<'static, KeyPair>) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        self.write(name, &certificate.pem(), &key)
    }

    /// A certificate for everybody, and its key for this user only.
    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> anyhow::Result<()> {
        let key = Zeroizing::new(key.serialize_pem());
        for (file, text, mode) in [(format!("{name}-key.pem"), key.as_str(), 0o600), (format!("{name}.pem"), certificate, 0o644)] {
            let path = self.0.join(file);
            write_new(&path, text, mode).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Never over a file that is there: it may be somebody's only key.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}
