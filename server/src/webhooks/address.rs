//! Where webhooks may be sent. A tenant must not make the service call what only the service can reach, so that addresses are looked at when the
//! connection is made: a name that resolves to another address later does not help.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How far webhooks may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// https to public addresses.
    #[default]
    Public,
    /// Also http, and any address: for networks that trust all tenants.
    Anywhere,
}

/// Not a URL for a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read.
    #[error("is not a URL with a host")]
    Unreadable,
    /// Others on the way could read it.
    #[error("must be https")]
    Scheme,
    /// It would be kept and logged.
    #[error("must not hold a user name or a password; calls are signed")]
    Credentials,
    /// It is within.
    #[error("names {0}, which is not a public address")]
    Address(IpAddr),
    /// Nothing is let out there.
    #[error("has the port {got}; webhooks are sent to {}", listed(allowed))]
    Port {
        /// Its port.
        got: u16,
        /// Those that it may have.
        allowed: Vec<u16>,
    },
}

fn listed(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Parses the URL of a webhook, whose port must be one of `ports`; if there are none, any.
///
/// # Errors
/// See [`UrlError`].
pub fn check_url(text: &str, reach: Reach, ports: &[u16]) -> Result<Url, UrlError> {
    let url = Url::parse(text).map_err(|_| UrlError::Unreadable)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::Unreadable)?;
    match (url.scheme(), reach) {
        ("https", _) | ("http", Reach::Anywhere) => {}
        _ => return Err(UrlError::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    // Both schemes have one.
    let got = url.port_or_known_default().unwrap_or_default();
    if !ports.is_empty() && !ports.contains(&got) {
        return Err(UrlError::Port { got, allowed: ports.to_vec() });
    }
    // A literal address is not resolved, so it is looked at here.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match literal {
        Ok(address) if !reach.allows(address) => Err(UrlError::Address(address)),
        _ => Ok(url),
    }
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        self == Self::Anywhere || is_public(address)
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the host has no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Neither this machine nor its networks, nor a range that is reserved (RFC 6890 and its successors).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 224
        || is_shared
        || is_protocol
        || is_benchmark
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

/// Of the global unicast range 2000::/3, without what tunnels to IPv4 or is reserved.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = (0x2000..0x4000).contains(&a);
    let is_protocol = a == 0x2001 && (b < 0x0200 || b == 0x0db8);
    let is_6to4 = a == 0x2002;
    is_global && !is_protocol && !is_6to4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for within in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a00:1",
            "2001:db8::1",
        ] {
            assert!(!is_public(within.parse().unwrap()), "{within}");
        }
    }

    #[test]
    fn urls_that_reach_within_are_refused() {
        assert!(check_url("https://example.com/hook?x=1", Reach::Public, &[]).is_ok());
        assert!(check_url("http://127.0.0.1:8080/", Reach::Anywhere, &[]).is_ok());
        for (url, error) in [
            ("", UrlError::Unreadable),
            ("https://", UrlError::Unreadable),
            ("mailto:a@b.example", UrlError::Unreadable),
            ("http://example.com/", UrlError::Scheme),
            ("https://user:word@example.com/", UrlError::Credentials),
            ("https://[::1]/", UrlError::Address("::1".parse().unwrap())),
            // Other spellings of 127.0.0.1 are the same address to the parser.
            ("https://127.1/", UrlError::Address("127.0.0.1".parse().unwrap())),
            ("https://0x7f000001/", UrlError::Address("127.0.0.1".parse().unwrap())),
        ] {
            assert_eq!(check_url(url, Reach::Public, &[]), Err(error), "{url}");
        }
    }

    #[test]
    fn urls_with_other_ports_than_those_that_are_let_out_are_refused() {
        let check = |url: &str| check_url(url, Reach::Anywhere, &[443, 8443]).err();
        for url in ["https://example.com/", "https://example.com:443/", "https://example.com:8443/", "http://example.com:443/"] {
            assert_eq!(check(url), None, "{url}");
        }
        for (url, got) in [("https://example.com:444/", 444), ("http://example.com/", 80)] {
            assert_eq!(check(url), Some(UrlError::Port { got, allowed: vec![443, 8443] }), "{url}");
        }
        assert_eq!(check("http://a/").unwrap().to_string(), "has the port 80; webhooks are sent to 443, 8443");
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_resolved() {
        let name = || "localhost".parse::<Name>().ok().unwrap();
        assert!(Reach::Public.resolve(name()).await.is_err());
        assert!(Reach::Anywhere.resolve(name()).await.is_ok());
    }
}
