//! A picture is known at another member though it was made smaller and encoded anew.

use std::path::Path;

use hashpact_matching::pdq::DEFAULT_DISTANCE;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ImageError, Rgb, RgbImage};
use sha2::{Digest as _, Sha256};

use super::ask::until;
use super::stage::{Stage, millis};
use super::world::{Who, World};
use crate::cli::error::CliError;
use crate::cli::output::duration;

const PICTURES: &str = "northstar/pictures";
/// Sides of the picture that is listed, and of the copy that is looked up.
const SIDES: (u32, u32) = (960, 720);
const COPY_SIDES: (u32, u32) = (400, 300);
/// Quality of the copy's JPEG, of 100: what a chat program sends on.
const COPY_QUALITY: u8 = 55;
/// Discs that are drawn.
const DISCS: u64 = 60;

/// Northstar lists a picture by its PDQ; harbor is asked about a copy of it.
pub(super) async fn look_up(world: &World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("A picture: harbor is asked about a copy, smaller and encoded anew")?;
    let (original, copy) = (world.input("picture.png"), world.input("copy.jpg"));
    let (a, b) = (original.clone(), copy.clone());
    let made = tokio::task::spawn_blocking(move || make(&a, &b));
    made.await.map_err(CliError::failed)??;
    let list = list(world, &original).await?;
    let list = list.display().to_string();
    let create = [
        "set", "create", "pictures", "--source", "own", "--grant", "all",
    ];
    world.at(Who::Northstar, &create).await?;
    let import = ["import", "--set", "pictures", "--format", "list", &list];
    world.at(Who::Northstar, &import).await?;
    stage.told(
        format_args!("{PICTURES}: the PDQ of a PNG of {} × {}", SIDES.0, SIDES.1),
        "",
    )?;
    let copy = copy.display().to_string();
    let line = ["lookup", "--hash-of", &copy];
    let known = until("harbor to know the picture", || async {
        // Exit code 3 as long as it does not.
        Ok(world.at(Who::Harbor, &line).await.ok())
    });
    let known = known.await?;
    let answer = known.json()?;
    let matches = answer["matches"].as_array();
    let found = matches.and_then(|matches| matches.iter().find(|found| found["set"] == PICTURES));
    let distance = found.and_then(|found| found["distance"].as_u64());
    let distance = distance.filter(|distance| *distance <= u64::from(DEFAULT_DISTANCE));
    let Some(distance) = distance else {
        return Err(CliError::failed("harbor knows the copy by something else"));
    };
    stage.told(
        format_args!(
            "a JPEG of {} × {} is known: {distance} of 256 bits differ",
            COPY_SIDES.0, COPY_SIDES.1
        ),
        duration(known.took),
    )?;
    stage.figure("picture_distance_bits", distance);
    stage.figure("picture_lookup_ms", millis(known.took));
    stage.sum(
        "a smaller copy of a picture, encoded anew",
        format_args!("known, {distance} bits off"),
    );
    Ok(())
}

/// Writes the list that is imported: the PDQ that `hashpact hash` prints.
async fn list(world: &World, picture: &Path) -> Result<std::path::PathBuf, CliError> {
    let picture = picture.display().to_string();
    let hashed = world.call(&["hash", &picture]).await?.json()?;
    let file = &hashed["files"][0];
    let pdq = file["pdq"].as_str().zip(file["pdq_quality"].as_u64());
    let (pdq, quality) = pdq.ok_or_else(|| CliError::failed("the picture has no PDQ"))?;
    let list = world.input("pictures.txt");
    let line = format!("PDQ:{pdq}#{quality}\n");
    std::fs::write(&list, line)
        .map_err(|error| CliError::failed(format!("{}: {error}", list.display())))?;
    Ok(list)
}

/// Draws the picture, and makes the copy of it.
fn make(original: &Path, copy: &Path) -> Result<(), CliError> {
    let fail =
        |path: &Path, error: ImageError| CliError::failed(format!("{}: {error}", path.display()));
    let picture = draw();
    picture
        .save(original)
        .map_err(|error| fail(original, error))?;
    let (width, height) = COPY_SIDES;
    let smaller = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, COPY_QUALITY)
        .encode_image(&smaller)
        .map_err(|error| fail(copy, error))?;
    std::fs::write(copy, jpeg)
        .map_err(|error| CliError::failed(format!("{}: {error}", copy.display())))
}

/// Discs of many colours before a sky: as much to see as in a photo.
fn draw() -> RgbImage {
    let (width, height) = SIDES;
    let mut picture = RgbImage::from_fn(width, height, |x, y| {
        let share = |at: u32, of: u32| u8::try_from(at * 160 / of).unwrap_or(u8::MAX);
        Rgb([40 + share(y, height), 60 + share(x, width), 200])
    });
    for disc in 0..DISCS {
        let dice: [u8; 32] = Sha256::digest(format!("hashpact demo: disc {disc}")).into();
        let [red, green, blue, left, top, size, ..] = dice;
        let at = |dice: u8, side: u32| i64::from(u32::from(dice) * side / 255);
        let (left, top) = (at(left, width), at(top, height));
        let radius = 20 + i64::from(size) / 3;
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let (x, y) = (i64::from(x) - left, i64::from(y) - top);
            if x * x + y * y < radius * radius {
                *pixel = Rgb([red, green, blue]);
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashpact_matching::pdq;

    #[test]
    fn the_copy_is_another_file_and_the_same_picture() {
        let folder = tempfile::tempdir().unwrap();
        let (original, copy) = (folder.path().join("a.png"), folder.path().join("b.jpg"));
        make(&original, &copy).unwrap();
        let hash = |path| {
            let file = std::fs::read(path).unwrap();
            pdq::hash::hash(&file, &pdq::hash::Limits::default()).unwrap()
        };
        let (original, copy) = (hash(original), hash(copy));
        assert!(original.quality >= 50 && copy.quality >= 50);
        let apart = pdq::distance(&original.value, &copy.value);
        assert!((1..=DEFAULT_DISTANCE).contains(&apart), "{apart}");
        let bits: u32 = original.value.iter().map(|byte| byte.count_ones()).sum();
        assert!((96..=160).contains(&bits), "{bits}");
    }
}
