using System.Buffers.Binary;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// A part of a table of level 2, or of a block of reference counts: what is read and written of an image's tables at
/// once. It is kept as it is in the file, big-endian.
/// </summary>
internal sealed class MetadataPage(long offset, Memory<byte> data)
{
    /// <summary>Where it is in the file.</summary>
    public long Offset => offset;

    /// <summary>Its bytes.</summary>
    public Memory<byte> Data => data;

    /// <summary>Whether its bytes are there; otherwise they are being read.</summary>
    public bool IsLoaded { get; set; }

    /// <summary>Whether reading it failed.</summary>
    public bool HasFailed { get; set; }

    /// <summary>Whether it has changes that a commit has not begun to write.</summary>
    public bool IsDirty { get; set; }

    /// <summary>How many commits are writing it.</summary>
    public int Writers { get; set; }

    /// <summary>Whether it was used since the cache last looked for one to drop.</summary>
    public bool IsUsed { get; set; }

    /// <summary>Reads an entry of 8 bytes.</summary>
    public ulong this[int index]
    {
        get => BinaryPrimitives.ReadUInt64BigEndian(data.Span[(index * Qcow2Layout.EntrySize)..]);
        set => BinaryPrimitives.WriteUInt64BigEndian(data.Span[(index * Qcow2Layout.EntrySize)..], value);
    }
}
