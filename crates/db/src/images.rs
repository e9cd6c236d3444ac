//! Images: what is registered, for whom, and how far it is. The bytes are in the object store.

use nova_types::image::{DiskFormat, Image, ImageState, NewImage};
use nova_types::{ImageId, ImageKind, ProjectId};

use crate::{Conn, DbError, Row, Unique};

/// Why a change of images is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The database failed, or lost the transaction.
    #[error(transparent)]
    Db(#[from] DbError),
    /// There is no such image, or it is not the caller's to change.
    #[error("there is no image {0}")]
    NotFound(ImageId),
    /// The project has registered that place already.
    #[error("{0} is registered already")]
    LocationTaken(String),
    /// The image is not in a state in which that can happen to it.
    #[error("image {image} is {}", is.as_str())]
    State {
        /// The image.
        image: ImageId,
        /// Its state.
        is: ImageState,
    },
}

/// What is known of an image once its bytes are here.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The SHA-256 of the bytes in hexadecimal.
    pub sha256: &'a str,
    /// The length of the file.
    pub size_bytes: u64,
    /// The size of the disk in it.
    pub virtual_size_bytes: u64,
}

/// Registers an image as pending: its bytes are still to come.
///
/// # Errors
/// [`ImageError::LocationTaken`] when the project has registered that place and not deregistered it.
pub async fn register(conn: &mut Conn, new: &NewImage) -> Result<ImageId, ImageError> {
    const REGISTER: &str = "
        insert into images (kind, name, description, location, owner_id, is_public, architecture, disk_format,
                            kernel_id, ramdisk_id, state)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')";
    let args = [
        new.kind.as_str().into(),
        (&new.name).into(),
        (&new.description).into(),
        (&new.location).into(),
        (&new.owner).into(),
        new.is_public.into(),
        (&new.architecture).into(),
        new.format.as_str().into(),
        new.kernel.into(),
        new.ramdisk.into(),
    ];
    match conn.insert(REGISTER, &args).await {
        Ok(key) => Ok(ImageId::from_row(new.kind, key)),
        Err(DbError::Duplicate(Unique::ImageLocation)) => Err(ImageError::LocationTaken(new.location.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Finds an image that a project may see: its own, or a public one.
///
/// # Errors
/// Only where the database fails.
pub async fn get(conn: &mut Conn, project: &ProjectId, id: ImageId) -> Result<Option<Image>, DbError> {
    const FIND: &str = "
        select * from images
         where id = ? and kind = ? and deleted = false and (owner_id = ? or is_public = true)";
    let args = [id.row().into(), id.kind().as_str().into(), project.into()];
    conn.optional(FIND, &args).await?.as_ref().map(read).transpose()
}

/// Finds an image whoever owns it, also one that was deregistered: its guests may still run.
///
/// # Errors
/// Only where the database fails.
pub async fn get_any(conn: &mut Conn, id: ImageId) -> Result<Option<Image>, DbError> {
    const FIND: &str = "select * from images where id = ? and kind = ?";
    let args = [id.row().into(), id.kind().as_str().into()];
    conn.optional(FIND, &args).await?.as_ref().map(read).transpose()
}

/// Lists the images that a project may see, or all, oldest first.
///
/// # Errors
/// Only where the database fails.
pub async fn list(conn: &mut Conn, project: Option<&ProjectId>) -> Result<Vec<Image>, DbError> {
    const ALL: &str = "select * from images where deleted = false order by id";
    const VISIBLE: &str = "
        select * from images where deleted = false and (owner_id = ? or is_public = true) order by id";
    let rows = match project {
        None => conn.all(ALL, &[]).await?,
        Some(project) => conn.all(VISIBLE, &[project.into()]).await?,
    };
    rows.iter().map(read).collect()
}

/// Lists the images whose bytes are not all here, oldest first: what a crash may have left half registered.
///
/// # Errors
/// Only where the database fails.
pub async fn pending(conn: &mut Conn) -> Result<Vec<Image>, DbError> {
    const PENDING: &str = "select * from images where state = 'pending' and deleted = false order by id";
    conn.all(PENDING, &[]).await?.iter().map(read).collect()
}

/// Lists the pending images whose registration began at least `seconds` ago.
///
/// # Errors
/// Only where the database fails.
pub async fn pending_since(conn: &mut Conn, seconds: i32) -> Result<Vec<Image>, DbError> {
    const PENDING: &str =
        "select * from images where state = 'pending' and deleted = false and created_at <= {now-?} order by id";
    conn.all(PENDING, &[seconds.into()]).await?.iter().map(read).collect()
}

/// Takes back a registration that nobody completes, unless somebody just did. Tells whether it was taken back.
///
/// # Errors
/// Only where the database fails.
pub async fn abandon(conn: &mut Conn, id: ImageId) -> Result<bool, DbError> {
    const ABANDON: &str = "
        update images set state = 'deregistered', state_reason = 'Its registration was interrupted.', deleted = true,
               deleted_at = {now}
         where id = ? and kind = ? and state = 'pending' and deleted = false";
    Ok(conn.execute(ABANDON, &[id.row().into(), id.kind().as_str().into()]).await? > 0)
}

/// Lets every project launch an image, or only its owner. Only `owner` may, or with `None` anybody: an administrator.
///
/// # Errors
/// [`ImageError::NotFound`].
pub async fn set_public(
    conn: &mut Conn,
    owner: Option<&ProjectId>,
    id: ImageId,
    is_public: bool,
) -> Result<(), ImageError> {
    const SET: &str = "
        update images set is_public = ?, updated_at = {now}
         where id = ? and kind = ? and deleted = false and owner_id = coalesce(?, owner_id)";
    let args = [is_public.into(), id.row().into(), id.kind().as_str().into(), owner.into()];
    match conn.execute(SET, &args).await? {
        0 => Err(ImageError::NotFound(id)),
        _ => Ok(()),
    }
}

/// Takes an image away from launches to come. Only `owner` may, or with `None` anybody: an administrator.
///
/// # Errors
/// [`ImageError::NotFound`].
pub async fn deregister(conn: &mut Conn, owner: Option<&ProjectId>, id: ImageId) -> Result<(), ImageError> {
    const DEREGISTER: &str = "
        update images set state = 'deregistered', deleted = true, deleted_at = {now}
         where id = ? and kind = ? and deleted = false and owner_id = coalesce(?, owner_id)";
    match conn.execute(DEREGISTER, &[id.row().into(), id.kind().as_str().into(), owner.into()]).await? {
        0 => Err(ImageError::NotFound(id)),
        _ => Ok(()),
    }
}

/// Says that the bytes of a pending image are here and are what they should be.
///
/// # Errors
/// [`ImageError::State`] when it is no longer pending, [`ImageError::NotFound`].
pub async fn available(conn: &mut Conn, id: ImageId, stored: Stored<'_>) -> Result<(), ImageError> {
    const AVAILABLE: &str = "
        update images set state = 'available', state_reason = null, checksum = ?, size_bytes = ?,
               virtual_size_bytes = ?, updated_at = {now}
         where id = ? and kind = ? and state = 'pending' and deleted = false";
    let args = [
        stored.sha256.into(),
        bytes(stored.size_bytes)?.into(),
        bytes(stored.virtual_size_bytes)?.into(),
        id.row().into(),
        id.kind().as_str().into(),
    ];
    let moved = conn.execute(AVAILABLE, &args).await?;
    was_pending(conn, id, moved).await
}

/// Says that the registration of a pending image failed, and why, in a sentence for its owner.
///
/// # Errors
/// [`ImageError::State`] when it is no longer pending, [`ImageError::NotFound`].
pub async fn failed(conn: &mut Conn, id: ImageId, reason: &str) -> Result<(), ImageError> {
    const FAILED: &str = "
        update images set state = 'failed', state_reason = ?, updated_at = {now}
         where id = ? and kind = ? and state = 'pending' and deleted = false";
    let moved = conn.execute(FAILED, &[reason.into(), id.row().into(), id.kind().as_str().into()]).await?;
    was_pending(conn, id, moved).await
}

async fn was_pending(conn: &mut Conn, id: ImageId, moved: u64) -> Result<(), ImageError> {
    if moved > 0 {
        return Ok(());
    }
    match get_any(conn, id).await? {
        Some(image) => Err(ImageError::State { image: id, is: image.state }),
        None => Err(ImageError::NotFound(id)),
    }
}

/// A length as the database holds it. More than eight exbibytes cannot be stored anywhere.
fn bytes(length: u64) -> Result<i64, DbError> {
    i64::try_from(length).map_err(|_| DbError::Corrupt { column: "size_bytes", value: length.to_string() })
}

/// Reads a column that holds one of a few words.
fn word<T>(row: &Row, column: &'static str, read: impl Fn(&str) -> Option<T>) -> Result<T, DbError> {
    let value: String = row.get(column)?;
    read(&value).ok_or(DbError::Corrupt { column, value })
}

fn read(row: &Row) -> Result<Image, DbError> {
    Ok(Image {
        id: ImageId::from_row(word(row, "kind", ImageKind::from_word)?, row.get("id")?),
        owner: row.parse("owner_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        location: row.get("location")?,
        is_public: row.get("is_public")?,
        architecture: row.get("architecture")?,
        format: word(row, "disk_format", DiskFormat::from_word)?,
        kernel: row.parse_some("kernel_id")?,
        ramdisk: row.parse_some("ramdisk_id")?,
        state: word(row, "state", ImageState::from_word)?,
        state_reason: row.get("state_reason")?,
        sha256: row.get("checksum")?,
        size_bytes: row.narrow_some("size_bytes")?,
        virtual_size_bytes: row.narrow_some("virtual_size_bytes")?,
        created_at: row.get("created_at")?,
    })
}

#[cfg(test)]
mod tests;
