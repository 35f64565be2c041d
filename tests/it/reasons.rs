//! Every drop reason has a test that provokes it: this one walks them all and names it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use switch_common::DropReason;

/// The file, from the project's root, and the words in it that are the test.
fn provoked_by(reason: DropReason) -> (&'static str, &'static str) {
    match reason {
        DropReason::Malformed => ("tests/it/bad_frames.rs", "fn cut_tags_are_malformed_and_stop_nothing"),
        DropReason::TooBig => ("tests/scenarios/oversize.toml", "drop = \"too_big\""),
        DropReason::BadOffload => {
            ("tests/it/bad_frames.rs", "fn a_super_frame_of_tiny_segments_or_of_no_transport_is_bad_offload")
        }
        DropReason::GroupSource => ("tests/scenarios/group_source.toml", "drop = \"group_source\""),
        DropReason::SpoofedSource => ("tests/scenarios/spoofed_source.toml", "drop = \"spoofed_source\""),
        DropReason::ReservedAddress => ("tests/scenarios/reserved_addresses.toml", "drop = \"reserved_address\""),
        DropReason::Hairpin => ("tests/scenarios/hairpin.toml", "drop = \"hairpin\""),
        DropReason::NoEgress => ("tests/scenarios/no_egress.toml", "drop = \"no_egress\""),
        DropReason::PortDown => ("tests/scenarios/port_down.toml", "drop = \"port_down\""),
        DropReason::StationLimit => ("tests/scenarios/station_limit_static.toml", "drop = \"station_limit\""),
        DropReason::FloodLimited => ("tests/it/floods.rs", "fn a_broadcast_storm_is_limited"),
        DropReason::PuntLimited => ("tests/it/floods.rs", "fn a_brain_that_falls_behind_limits_punts"),
        DropReason::EgressGone => ("tests/it/memory.rs", "fn a_copy_for_a_port_that_went_away_is_egress_gone"),
        DropReason::BrainAbsent => ("tests/it/lifecycle.rs", "fn an_orderly_stop_with_keep_leaves_traffic_running"),
        DropReason::InjectFailed => ("tests/it/memory.rs", "fn a_copy_that_the_kernel_refuses_is_inject_failed"),
        // The one that must never be: `Daemon::settle` asserts it after every test.
        DropReason::Other => ("tests/harness/daemon.rs", "dropped for reasons unforeseen"),
    }
}

#[test]
fn every_drop_reason_has_a_test_that_provokes_it() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for reason in DropReason::ALL {
        let (file, words) = provoked_by(*reason);
        let text = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
        ensure!(text.contains(words), "{}: {words} is not in {file}", reason.label());
    }
    Ok(())
}
