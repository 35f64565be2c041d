//! The filters of `weft flows`, in the manner of `hubble observe`: the same flag repeated is OR, different flags are AND, and
//! `--not` negates the one that follows it. So their order matters, which is why clap is not asked to sort them into fields.

use std::fmt::Write as _;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use jiff::Timestamp;

use crate::flow::Filter;
use crate::flow::filter::Field;

const NOT: &str = "not";

/// Which conversations are to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters(Filter);

impl Filters {
    /// The same as a query string; empty when everything is to be shown.
    pub(super) fn query(&self) -> String {
        let mut query = String::new();
        for (flag, value, negated) in self.0.words() {
            let not = if negated { "not-" } else { "" };
            write!(query, "{not}{flag}={}&", Quoted(&value)).expect("a string takes everything");
        }
        query
    }
}

/// A value within a query (RFC 3986, section 3.4).
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                f.write_char(char::from(byte))
            }
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

/// What a flag takes, and what it asks for.
fn describe(field: Field) -> (&'static str, &'static str) {
    match field {
        Field::Port => ("NAME", "Either port"),
        Field::FromPort => ("NAME", "The port of who began"),
        Field::ToPort => ("NAME", "The port of who answered, or that it was sent to"),
        Field::Mac => ("MAC", "Either station"),
        Field::Ip => ("ADDRESS", "Either address, or a network as 198.18.0.0/15"),
        Field::Vlan => ("VLAN", "Either tag's VLAN"),
        Field::Protocol => ("PROTOCOL", "tcp, udp, icmp, arp, ipv6, 0x88b5, … or a protocol's number"),
        Field::L4Port => ("PORT", "Either TCP or UDP port"),
        Field::Verdict => ("VERDICT", "forwarded, flooded or dropped"),
        Field::DropReason => ("REASON", "A drop reason, as `weft drops` shows them"),
        Field::Since => ("TIME", "With a frame since: 2026-11-22T07:00:00Z, or 90s, 5m, 2h, 1d ago"),
        Field::Until => ("TIME", "With the last frame before: a time or how long ago, as for --since"),
    }
}

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        let not = Arg::new(NOT)
            .long(NOT)
            .help("Negate the filter that follows")
            .action(ArgAction::Append)
            .num_args(0)
            .default_missing_value("");
        let filters = Field::ALL.map(|field| {
            let (value, help) = describe(field);
            Arg::new(field.name()).long(field.name()).value_name(value).help(help).action(ArgAction::Append)
        });
        command.next_help_heading("Filters (the same one repeated: or; different ones: and)").args(filters).arg(not)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let now = Timestamp::now();
        let nots = matches.indices_of(NOT).into_iter().flatten().map(|at| (at, None));
        let words = Field::ALL.into_iter().flat_map(|field| {
            let places = matches.indices_of(field.name()).into_iter().flatten();
            let values = matches.get_many::<String>(field.name()).into_iter().flatten();
            places.zip(values.map(move |value| Some((field.name(), value))))
        });
        let mut typed: Vec<_> = nots.chain(words).collect();
        typed.sort_by_key(|(at, _)| *at);
        let (mut filter, mut negated) = (Filter::default(), false);
        for (_, word) in typed {
            match word {
                None => negated = true,
                Some((flag, value)) => {
                    let added = filter.add(flag, value, std::mem::take(&mut negated), now);
                    added.map_err(|error| refused(&error.to_string()))?;
                }
            }
        }
        if negated {
            return Err(refused("--not: there is no filter behind it that it could negate"));
        }
        Ok(Self(filter))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn refused(message: &str) -> Error {
    Error::raw(ErrorKind::ValueValidation, message)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        filters: Filters,
    }

    fn query(words: &str) -> Result<String, String> {
        let typed = Typed::try_parse_from(std::iter::once("flows").chain(words.split_whitespace()));
        typed.map(|typed| typed.filters.query()).map_err(|error| error.to_string())
    }

    #[test]
    fn not_negates_the_filter_that_follows_it_and_no_other() {
        for (words, expected) in [
            ("", ""),
            ("--port a --port b", "port=a&port=b&"),
            ("--not --port a --port b", "not-port=a&port=b&"),
            ("--port a --not --port b --mac 52:54:00:00:00:01", "port=a&not-port=b&mac=52:54:00:00:00:01&"),
            ("--not -f --protocol arp --not --l4-port=53", "not-protocol=arp&not-l4-port=53&"),
            ("--ip 198.18.0.0/15 --ip 2001:db8::/32", "ip=198.18.0.0/15&ip=2001:db8::/32&"),
        ] {
            assert_eq!(query(words).as_deref(), Ok(expected), "{words}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        for (words, complaint) in [
            ("--port a --not", "--not: there is no filter behind it"),
            ("--ip 198.18.0.256", "--ip: '198.18.0.256' is not an IP address"),
            ("--vlan 4095", "--vlan: '4095' is not a VLAN"),
            ("--mac \u{1b}[31m", "'\\u{1b}[31m' is not a MAC address"),
        ] {
            let error = query(words).unwrap_err();
            assert!(error.contains(complaint), "{words}: {error}");
        }
    }

    #[test]
    fn a_value_is_quoted_for_a_query() {
        assert_eq!(Quoted("a&b=c d%\u{e9}").to_string(), "a%26b%3Dc%20d%25%C3%A9");
    }
}
