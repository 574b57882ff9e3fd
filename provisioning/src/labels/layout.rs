//! Where everything on a label stands: the code on the left with the quiet zone that readers need, the name as
//! large as it fits beside it, smaller lines below. Letters all have the same width, so that what fits is known.

use qrcode::{EcLevel, QrCode, types::QrError};

use super::Label;

/// Something to print, in millimetres from the label's corner.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A black rectangle: dark modules of the code that stand side by side.
    Dark {
        /// Its left side.
        x: f32,
        /// Its upper side.
        y: f32,
        /// Its width.
        width: f32,
        /// Its height.
        height: f32,
    },
    /// A line of letters.
    Text {
        /// Where it begins.
        x: f32,
        /// Its base line.
        y: f32,
        /// The height of its letters.
        size: f32,
        /// Printable ASCII.
        text: String,
    },
}

/// Between the edge and anything: printers are that imprecise.
const PADDING: f32 = 2.0;
/// Light modules that a reader needs around a code.
const QUIET: usize = 4;
/// What a phone reads from a hand's distance.
const MODULE_MIN: f32 = 0.25;
/// More does not help a phone.
const MODULE_MAX: f32 = 1.0;
/// The width of a letter of Courier, in heights.
pub const LETTER_WIDTH: f32 = 0.6;
/// From one line to the next, in heights.
const LEADING: f32 = 1.15;
/// What people can read.
const SIZE_MIN: f32 = 1.2;
const SIZE_MAX: f32 = 6.0;
const SIZE_STEP: f32 = 0.1;
/// A name stays on fewer lines unless that makes its letters smaller than this part of what they could be.
const WHOLE: f32 = 0.6;
/// Smaller lines, against the name.
const SMALLER: f32 = 0.7;
/// Lines of which the name takes at most.
const NAME_LINES_MAX: usize = 4;

/// Why a label cannot be printed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// No reader would read it.
    #[error(
        "a label of {width} × {height} mm is too small for the code of {url}: its squares would be {module:.2} mm, and phones need {MODULE_MIN} mm"
    )]
    TooSmall {
        /// The label's.
        width: f32,
        /// The label's.
        height: f32,
        /// What the code says.
        url: String,
        /// What would be left for one square.
        module: f32,
    },
    /// The address does not fit into a code.
    #[error("the address {url} cannot be made a code: {why}")]
    NoCode {
        /// The address.
        url: String,
        /// Why.
        why: QrError,
    },
}

/// What is printed on a label of this size.
pub fn layout(label: &Label, (width, height): (f32, f32)) -> Result<Vec<Mark>, LayoutError> {
    let code = QrCode::with_error_correction_level(&label.url, EcLevel::M);
    let code = code.map_err(|why| LayoutError::NoCode { url: label.url.clone(), why })?;
    let modules = code.width();
    // The quiet zone may reach to the edge: beyond it is the gap to the next label, or the device.
    let room = height.min(width * 0.55) - PADDING;
    let module = (room / (modules + QUIET) as f32).min(MODULE_MAX);
    if module < MODULE_MIN {
        return Err(LayoutError::TooSmall { width, height, url: label.url.clone(), module });
    }
    let side = modules as f32 * module;
    let (left, top) = ((QUIET as f32 * module).max(PADDING), (height - side) / 2.0);
    let mut marks = dark(&code, left, top, module);
    let beside = left + side + QUIET as f32 * module;
    marks.extend(words(label, beside, width - PADDING - beside, height));
    Ok(marks)
}

/// The dark modules, those side by side as one.
fn dark(code: &QrCode, left: f32, top: f32, module: f32) -> Vec<Mark> {
    let colors = code.to_colors();
    let mut marks = Vec::new();
    for (row, line) in colors.chunks(code.width()).enumerate() {
        let mut from = 0;
        for run in line.chunk_by(|one, other| one == other) {
            if run[0] == qrcode::Color::Dark {
                let (x, y) = (left + from as f32 * module, top + row as f32 * module);
                marks.push(Mark::Dark { x, y, width: run.len() as f32 * module, height: module });
            }
            from += run.len();
        }
    }
    marks
}

/// Name and smaller lines, as large as they fit; what does not fit even small is left out.
fn words(label: &Label, x: f32, width: f32, height: f32) -> Vec<Mark> {
    let room = height - 2.0 * PADDING;
    // For each number of lines of the name, the largest letters; parting it must make them much larger.
    let options: Vec<(f32, Vec<(f32, String)>)> =
        (1..=NAME_LINES_MAX).filter_map(|lines| largest(label, width, room, lines)).collect();
    let best = options.iter().map(|(size, _)| *size).fold(0.0, f32::max);
    let chosen = options.into_iter().find(|(size, _)| *size >= best * WHOLE).map(|(_, lines)| lines);
    let lines = chosen.unwrap_or_else(|| set(label, width, SIZE_MIN).1);
    let mut below = 0.0;
    let fitting = lines.into_iter().map_while(|(size, text)| {
        below += size * LEADING;
        (below <= room).then_some((below, size, text))
    });
    let fitting: Vec<_> = fitting.collect();
    let used = fitting.last().map_or(0.0, |(below, ..)| *below);
    let top = PADDING + (room - used) / 2.0;
    // Letters reach a fifth of their height below the base line.
    let mark = |(below, size, text)| Mark::Text { x, y: top + below - size * 0.25, size, text };
    fitting.into_iter().map(mark).collect()
}

/// The largest letters with which all fits and the name has no more lines than so many.
fn largest(label: &Label, width: f32, room: f32, name_lines: usize) -> Option<(f32, Vec<(f32, String)>)> {
    let steps = ((SIZE_MAX - SIZE_MIN) / SIZE_STEP) as usize;
    (0..=steps).map(|step| SIZE_MAX - step as f32 * SIZE_STEP).find_map(|size| {
        let (lines, all) = set(label, width, size);
        let needed: f32 = all.iter().map(|(size, _)| size * LEADING).sum();
        (lines <= name_lines && needed <= room).then_some((size, all))
    })
}

/// All lines in letters of this size: how many of them are the name's, and the lines with their sizes.
fn set(label: &Label, width: f32, size: f32) -> (usize, Vec<(f32, String)>) {
    let small = (size * SMALLER).max(SIZE_MIN);
    let in_lines = |size: f32, text: &str| {
        let letters = (width / (size * LETTER_WIDTH)) as usize;
        wrapped(text, letters.max(1)).into_iter().map(move |line| (size, line))
    };
    let name: Vec<_> = in_lines(size, label.name.as_str()).collect();
    let count = name.len();
    let smaller = label.lines.iter().flat_map(|line| in_lines(small, &printable(line)).collect::<Vec<_>>());
    (count, name.into_iter().chain(smaller).collect())
}

/// Lines of at most so many letters, parted after a hyphen where there is one in the last half.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.len() > letters {
        let at = rest[..letters].rfind(['-', '=', '/']).map_or(letters, |at| at + 1);
        let at = if at * 2 < letters { letters } else { at };
        lines.push(rest[..at].to_owned());
        rest = &rest[at..];
    }
    lines.push(rest.to_owned());
    lines
}

/// What the letters of every reader and printer have.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sheet::SHEETS;
    use super::*;

    /// The dark squares as a camera would see them, at so many points a millimetre.
    fn photograph(marks: &[Mark], (width, height): (f32, f32), points: f32) -> Vec<Vec<bool>> {
        let mut rows = vec![vec![false; (width * points) as usize]; (height * points) as usize];
        for mark in marks {
            if let Mark::Dark { x, y, width, height } = mark {
                for row in &mut rows[(y * points).round() as usize..((y + height) * points).round() as usize] {
                    row[(x * points).round() as usize..((x + width) * points).round() as usize].fill(true);
                }
            }
        }
        rows
    }

    fn read(marks: &[Mark], size: (f32, f32)) -> Option<String> {
        let rows = photograph(marks, size, 12.0);
        let (width, height) = (rows[0].len(), rows.len());
        let mut seen =
            rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| if rows[y][x] { 10 } else { 240 });
        let codes = seen.detect_grids();
        codes.first().and_then(|code| code.decode().ok()).map(|(_, text)| text)
    }

    fn label(name: &str, host: &str, lines: &[&str]) -> Label {
        Label {
            name: name.parse().expect("a name"),
            url: format!("https://{host}/d/{name}"),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    fn check_inside(marks: &[Mark], (width, height): (f32, f32)) {
        for mark in marks {
            let (left, top, right, bottom) = match mark {
                Mark::Dark { x, y, width, height } => (*x, *y, x + width, y + height),
                Mark::Text { x, y, size, text } => {
                    (*x, y - size, x + text.len() as f32 * size * LETTER_WIDTH, y + size * 0.25)
                }
            };
            let inside = left >= 0.9 && top >= 0.9 && right <= width - 0.9 && bottom <= height - 0.9;
            assert!(inside, "{mark:?} on {width} × {height}");
        }
    }

    #[test]
    fn codes_on_every_sheet_are_read_as_their_address() {
        for (name, sheet) in SHEETS {
            let label = label("edge-0042", "plane.example.org:8443", &["site=north", "rack=7"]);
            let marks = layout(&label, sheet.label).expect("fits");
            check_inside(&marks, sheet.label);
            assert_eq!(read(&marks, sheet.label), Some(label.url), "{name}");
        }
    }

    #[test]
    fn a_label_that_no_phone_reads_is_refused() {
        let label = label(&"a".repeat(63), "plane.example.org:8443", &[]);
        let refused = layout(&label, (12.0, 10.0)).expect_err("too small");
        assert!(refused.to_string().contains("phones need 0.25 mm"), "{refused}");
        let long = Label { url: "x".repeat(4000), ..label };
        assert!(matches!(layout(&long, (70.0, 37.0)), Err(LayoutError::NoCode { .. })));
    }

    #[test]
    fn names_are_parted_at_hyphens() {
        assert_eq!(wrapped("packing-line-7", 9), ["packing-", "line-7"]);
        assert_eq!(wrapped("packing-line-7", 5), ["packi", "ng-", "line-", "7"]);
        assert_eq!(wrapped("edge-1", 6), ["edge-1"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn whatever_the_names_all_stays_on_the_label_and_is_read(
            name in "[a-z0-9-]{1,63}",
            host in "[a-z]{1,20}\\.[a-z]{2,10}(:[0-9]{4})?",
            lines in prop::collection::vec("\\PC{0,80}", 0..6),
            sheet in 0_usize..SHEETS.len(),
        ) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let label = label(&name, &host, &lines);
            let size = SHEETS[sheet].1.label;
            if let Ok(marks) = layout(&label, size) {
                check_inside(&marks, size);
                prop_assert_eq!(read(&marks, size), Some(label.url));
                let written: String = marks.iter().filter_map(|mark| match mark {
                    Mark::Text { text, .. } => Some(text.as_str()),
                    Mark::Dark { .. } => None,
                }).collect();
                prop_assert!(written.starts_with(&name), "the whole name stands there: {}", written);
            } else {
                prop_assert!(label.url.len() > 60, "refused: {}", label.url);
            }
        }
    }
}
