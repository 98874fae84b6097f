use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is not the public internet, as address and length (IANA IPv4 Special-Purpose Address Registry), with multicast,
/// class E, and Azure's host. The host has the same list for what guests call: it shares no code with billing.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// Global unicast is 2000::/3; in it these are not hosts of the internet, or stand for an IPv4 address that would escape
/// the check (IANA IPv6 Special-Purpose Address Registry).
const NOT_PUBLIC_V6: [(u16, u16, u32); 5] =
    [(0x2001, 0, 23), (0x2001, 0xdb8, 32), (0x2002, 0, 16), (0x3fff, 0, 20), (0x5f00, 0, 16)];

/// Whether an address is one of the public internet. A mapped IPv4 address is what it maps.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4
            .iter()
            .any(|(block, bits)| (block.to_bits() ^ v4.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0),
        IpAddr::V6(v6) => {
            let within = |a, b, bits: u32| {
                let block = Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).to_bits();
                (block ^ v6.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            };
            within(0x2000, 0, 3) && !NOT_PUBLIC_V6.iter().any(|(a, b, bits)| within(*a, *b, *bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_internet_and_nothing_else() {
        for public in
            ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for not in [
            "0.1.2.3",
            "10.0.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(not.parse().unwrap()), "{not}");
        }
    }
}
