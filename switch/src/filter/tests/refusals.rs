//! What is no filter is refused with the place of the error, and what would be more than a filter is refused, too.

use crate::filter::instruction::{Raw, decode};
use crate::filter::{EXPRESSION_BYTES_MAX, Program};

/// Where the error is, as the part of the expression that begins there.
fn error_at(expression: &str) -> String {
    let error = Program::compile(expression).unwrap_err();
    let position = error.position.unwrap_or_else(|| panic!("{expression}: {error:?}"));
    expression[position..].to_owned()
}

#[test]
fn the_place_of_an_error_is_the_first_word_that_cannot_be_there() {
    assert_eq!(error_at("tcp port 80 and and udp"), "and udp");
    assert_eq!(error_at("tcp prot 80"), "prot 80");
    assert_eq!(error_at("ip[0] & & 1 = 1"), "& 1 = 1");
    assert_eq!(error_at("(tcp or udp)) and ip"), ") and ip");
    assert_eq!(error_at("tcp and ]"), "]");
    // Something is missing at the end.
    assert_eq!(error_at("tcp port"), "");
    assert_eq!(error_at("(tcp or udp"), "");
    assert_eq!(error_at("host"), "");
}

#[test]
fn an_error_says_what_it_is_and_where() {
    let error = Program::compile("tcp prot 80").unwrap_err();
    assert!(error.to_string().ends_with("(at character 5)"), "{error}");
    // The control.
    assert!(Program::compile("tcp port 80").is_ok());
}

#[test]
fn an_expression_that_is_too_long_or_not_text_is_refused() {
    let long = vec!["host 198.18.0.1"; EXPRESSION_BYTES_MAX / 10].join(" or ");
    assert!(Program::compile(&long).unwrap_err().message.contains("characters"));
    assert!(Program::compile("ip\0").unwrap_err().message.contains("NUL"));
    assert!(Program::compile("ip[0] / 0 = 1").is_err());
}

#[test]
fn a_loop_through_headers_is_refused_with_what_to_write_instead() {
    let error = Program::compile("ip6 protochain 6").unwrap_err();
    assert!(error.message.contains("use 'proto'"), "{error}");
    // The control.
    assert!(Program::compile("ip6 proto 6").is_ok());
}

#[test]
fn what_only_the_kernel_knows_of_a_frame_is_refused() {
    // SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_NET_OFF, SKF_LL_OFF.
    for k in [0xffff_f004, 0xfff0_0000, 0xffe0_0000] {
        let raw = [Raw { code: 0x30, k, ..Raw::default() }, Raw { code: 0x16, ..Raw::default() }];
        assert!(decode(&raw).unwrap_err().contains("live capture"), "{k:#x}");
    }
    // The control.
    let raw = [Raw { code: 0x30, k: 4, ..Raw::default() }, Raw { code: 0x16, ..Raw::default() }];
    assert!(decode(&raw).is_ok());
}

#[test]
fn a_program_that_would_not_end_well_is_refused() {
    let answer = Raw { code: 0x06, k: 1, ..Raw::default() };
    let cases: [&[Raw]; 7] = [
        &[],
        // Runs out of its end; jumps out of it, either way.
        &[Raw { code: 0x00, ..Raw::default() }],
        &[Raw { code: 0x05, k: 7, ..Raw::default() }, answer],
        &[Raw { code: 0x15, jump_true: 3, ..Raw::default() }, answer],
        // No such memory; a division by zero; no such operation.
        &[Raw { code: 0x60, k: 16, ..Raw::default() }, answer],
        &[Raw { code: 0x34, k: 0, ..Raw::default() }, answer],
        &[Raw { code: 0xffff, ..Raw::default() }, answer],
    ];
    for case in cases {
        assert!(decode(case).is_err(), "{case:?}");
    }
    assert!(decode(&[answer]).is_ok());
}
