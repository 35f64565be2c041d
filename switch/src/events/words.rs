//! An event in a sentence for people.

use std::fmt::Write as _;

use super::{Event, EventKind};

impl Event {
    /// What happened, in words. Names in it are printable ASCII, as in the event.
    pub fn sentence(&self) -> String {
        let port = self.port.as_deref().unwrap_or("-");
        let other_port = self.other_port.as_deref().unwrap_or("-");
        let mac = self.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        let other_mac = self.other_mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        let address = self.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        let name = self.name.as_deref().unwrap_or("");
        let detail = &self.detail;
        let silent = detail.silent_secs.map(duration).unwrap_or_default();
        let query = || {
            let server = detail.server.map_or_else(|| "-".to_owned(), |server| server.to_string());
            let query_type = detail.query_type.as_deref().unwrap_or("-");
            format!("{address} at port {port} asked {server} for {query_type} of {name}")
        };
        let mut text = match self.kind {
            EventKind::NewStation => format!("new station {mac} at port {port}"),
            EventKind::StationMoved => format!("station {mac} moved from port {other_port} to port {port}"),
            EventKind::DuplicateAddress => {
                format!("{address} is claimed by {mac} at port {port} and by {other_mac} at port {other_port}")
            }
            EventKind::BindingNew => format!("{address} is at {mac}, port {port}"),
            EventKind::BindingChanged => {
                format!("{address} is at {mac}, port {port}; before at {other_mac}, port {other_port}")
            }
            EventKind::PortDormant => format!("port {port} has sent nothing useful for {silent}"),
            EventKind::PortAwake => format!("port {port} sends again, after {silent}"),
            EventKind::PortUnconfigured => format!("port {port} is in no configuration file"),
            EventKind::DnsAnswer => {
                let rcode = detail.rcode.as_deref().unwrap_or("-");
                let latency = detail.latency_us.map(latency).unwrap_or_default();
                format!("{}: {rcode} after {latency}", query())
            }
            EventKind::DnsTimeout => format!("{}: no answer", query()),
        };
        if let (Some(source), EventKind::DuplicateAddress | EventKind::BindingNew | EventKind::BindingChanged) =
            (&detail.source, self.kind)
        {
            write!(text, " ({source})").expect("a string takes everything");
        }
        if let Some(vlan) = detail.vlan {
            write!(text, " in VLAN {vlan}").expect("a string takes everything");
        }
        if let Some(suppressed) = detail.suppressed {
            write!(text, "; {suppressed} more before it").expect("a string takes everything");
        }
        text
    }
}

fn duration(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

fn latency(us: u64) -> String {
    if us < 10_000 { format!("{us} us") } else { format!("{} ms", us / 1000) }
}
