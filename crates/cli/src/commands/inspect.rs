//! `inspect`: the facts of one disk, for people.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use forestall_engine::{Service, SlotState};
use forestall_server::{ConfigurationFacts, Inspection, inspect as look_at};

use super::Session;
use crate::render::{Columns, tables};
use crate::size;

pub fn inspect(session: &Session, path: &str) -> Result<ExitCode> {
    let found = look_at(path).with_context(|| format!("cannot read {path}"))?;
    session.print(&found, || page(&found))?;
    Ok(if found.label.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn page(found: &Inspection) -> String {
    let mut text = format!("{}: {}\n", found.path, size::bytes(found.size));
    let _ = writeln!(text, "label: {}; copy: {}", found.labels[0], found.labels[1]);
    let Some(label) = &found.label else {
        text += "no label of Forestall can be used here\n";
        text.extend(found.damage.iter().map(|line| format!("DAMAGE: {line}\n")));
        return text;
    };
    let _ = writeln!(text, "disk {} of array {} ({})", label.number, label.name, label.array);
    let labelled = size::local_time(label.created_ms);
    let _ = writeln!(text, "disk identity {}, labelled {labelled}", label.disk);
    let _ = writeln!(text, "owner: {}", found.owner);
    if found.damage.is_empty() {
        text += "no damage found\n";
    }
    text.extend(found.damage.iter().map(|line| format!("DAMAGE: {line}\n")));
    text.extend(found.notes.iter().map(|line| format!("note: {line}\n")));
    for (place, slot) in found.configurations.iter().enumerate() {
        let _ = write!(text, "\nconfiguration slot {place}: {}", slot.state);
        match &slot.configuration {
            Some(facts) => configuration(&mut text, facts),
            None => text.push('\n'),
        }
    }
    text += "\nregions\n";
    let mut regions = Columns::new(&["REGION", "OFFSET", "LENGTH"]).indented(2);
    let mut in_order: Vec<_> = found.regions.iter().collect();
    in_order.sort_by_key(|region| region.offset);
    for region in in_order {
        regions.row(vec![region.name.clone(), region.offset.to_string(), size::bytes(region.len)]);
    }
    let _ = write!(text, "{regions}");
    if !found.maps.is_empty() {
        let _ = writeln!(text, "\nmaps of group {}, in pages of 4 KiB", found.maps[0].group);
        let mut maps = Columns::new(&["MAP", "WRITTEN", "TORN", "DAMAGED"]).indented(2);
        for map in &found.maps {
            let counts = [map.written, map.torn, map.damaged].map(|n| n.to_string());
            maps.row(std::iter::once(map.name.to_owned()).chain(counts).collect());
        }
        let _ = write!(text, "{maps}");
    }
    let _ = writeln!(text, "\n{} events kept here", found.events);
    text
}

fn configuration(text: &mut String, facts: &ConfigurationFacts) {
    let committed = size::local_time(facts.committed_at_ms);
    let _ = writeln!(
        text,
        ", generation {} of {}, committed {committed}",
        facts.generation, facts.name
    );
    for disk in &facts.disks {
        let service = match disk.service {
            Service::InService => "in service".to_owned(),
            Service::Dropped { generation, reason, at_ms, .. } => {
                let at = size::local_time(at_ms);
                format!("dropped ({reason:?}) at {at}, holds generation {generation}")
                    .to_lowercase()
            }
        };
        let _ = writeln!(text, "  disk {}: {service}, {}", disk.number, disk.path);
    }
    for group in &facts.groups {
        let slots: Vec<String> = group
            .slots
            .iter()
            .map(|(disk, state)| format!("{disk} {}", slot_word(*state)))
            .collect();
        let clean = if group.clean { "clean" } else { "not clean" };
        let (level, chunk) = (tables::level_word(group.level), size::bytes(group.chunk.into()));
        let _ = writeln!(
            text,
            "  group {}: {level}, chunk {chunk}, {clean}, disks {}",
            group.number,
            slots.join(", ")
        );
    }
    for volume in &facts.volumes {
        let (name, size) = (&volume.name, size::bytes(volume.size));
        let pieces = volume.extents.len();
        let _ = writeln!(
            text,
            "  volume {}: {name}, group {}, {size} in {pieces} extents",
            volume.number, volume.group
        );
    }
}

fn slot_word(state: SlotState) -> &'static str {
    match state {
        SlotState::InSync => "in sync",
        SlotState::Out => "out",
        SlotState::Rebuilding => "rebuilding",
        SlotState::Catching => "catching up",
    }
}
