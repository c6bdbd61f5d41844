using System.Buffers.Binary;
using System.Text;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>The header of an image (qcow2 specification, "Header" and "Header extensions"), checked.</summary>
internal sealed record Qcow2Header
{
    /// <summary>Longest name of a backing file, in bytes (specification).</summary>
    public const int MaxBackingName = 1023;

    /// <summary>Bytes of version 2's header.</summary>
    public const int Version2Length = 72;

    /// <summary>Bytes of version 3's header as it is written here.</summary>
    public const int Version3Length = 112;

    /// <summary>Where the size of the disk is in the header.</summary>
    public const int VirtualSizeAt = 24;

    /// <summary>Where the number of entries of level 1 is in the header.</summary>
    public const int L1SizeAt = 36;

    /// <summary>Where the place of level 1 is in the header.</summary>
    public const int L1OffsetAt = 40;

    /// <summary>Where the incompatible features are in the header.</summary>
    public const int IncompatibleAt = 72;

    /// <summary>Where the features are that who does not know them must clear.</summary>
    public const int AutoclearAt = 88;

    /// <summary>Where the number of snapshots is.</summary>
    public const int SnapshotsAt = 60;

    /// <summary>Where the place and size of the table of reference count blocks are.</summary>
    public const int RefcountTableAt = 48;

    /// <summary>Reference counts may be wrong, and must be made anew before the image is written.</summary>
    public const ulong DirtyFeature = 1;

    /// <summary>The image is broken, and must not be written until it is repaired.</summary>
    public const ulong CorruptFeature = 2;

    /// <summary>The generation is in the autoclear features from this bit on.</summary>
    public const int GenerationShift = 32;

    /// <summary>The extension with the format of the backing file.</summary>
    public const uint BackingFormatExtension = 0xE2792ACA;

    private const ulong ExternalDataFeature = 4;
    private const ulong CompressionFeature = 8;
    private const ulong ExtendedL2Feature = 16;
    private const ulong LazyRefcountsFeature = 1;
    private const uint EncryptionExtension = 0x0537BE77;
    private const uint FeatureNamesExtension = 0x6803F857;
    private const int FeatureNameSize = 48;
    private const int CompressionAt = 104;
    private const int MaxSnapshots = 65536; // QCOW_MAX_SNAPSHOTS

    /// <summary>2 or 3.</summary>
    public required int Version { get; init; }

    /// <summary>Its clusters.</summary>
    public required Qcow2Layout Layout { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public required long VirtualSize { get; init; }

    /// <summary>Where the table of level 1 is.</summary>
    public required long L1Offset { get; init; }

    /// <summary>Its entries.</summary>
    public required int L1Size { get; init; }

    /// <summary>Where the table of reference count blocks is.</summary>
    public required long RefcountTableOffset { get; init; }

    /// <summary>Its clusters.</summary>
    public required int RefcountTableClusters { get; init; }

    /// <summary>Internal snapshots.</summary>
    public required int SnapshotCount { get; init; }

    /// <summary>Where their table is.</summary>
    public required long SnapshotsOffset { get; init; }

    /// <summary>Features without which the image cannot be understood.</summary>
    public ulong Incompatible { get; init; }

    /// <summary>Features that may be ignored.</summary>
    public ulong Compatible { get; init; }

    /// <summary>Features that must be cleared by who writes the image without knowing them.</summary>
    public ulong Autoclear { get; init; }

    /// <summary>The name of the backing file; null when there is none.</summary>
    public string? BackingFile { get; init; }

    /// <summary>The format of the backing file; null when the image does not say.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>How compressed clusters are packed.</summary>
    public CompressionType Compression { get; init; }

    /// <summary>
    /// Its bitmaps of changed blocks; null if it has none. Those that another program has not kept true are none: the
    /// specification says so, and their clusters count as leaks.
    /// </summary>
    public BitmapDirectory? Bitmaps { get; init; }

    /// <summary>Whether reference counts may be wrong.</summary>
    public bool IsDirty => (Incompatible & DirtyFeature) != 0;

    /// <summary>Whether the image was found to be broken.</summary>
    public bool IsCorrupt => (Incompatible & CorruptFeature) != 0;

    /// <summary>Which state of the image this is, if this program wrote it last and has not closed it; otherwise 0.
    /// </summary>
    public uint Generation => (uint)(Autoclear >> GenerationShift);

    /// <summary>Whether its writers may leave reference counts for later.</summary>
    public bool HasLazyRefcounts => (Compatible & LazyRefcountsFeature) != 0;

    private static ReadOnlySpan<byte> Magic => "QFI"u8;

    /// <summary>What is wrong with the place or size of the refcount table; null if it can be read.</summary>
    public string? RefcountTableFault => RefcountTableClusters <= 0
        || Layout.OffsetOf(RefcountTableClusters) > Math.Max(Qcow2Layout.MaxRefcountTableBytes, Layout.ClusterSize)
            ? $"its table of reference counts has {(uint)RefcountTableClusters} clusters"
        : !IsTable(RefcountTableOffset) ? $"its table of reference counts is at {RefcountTableOffset}"
        : null;

    /// <summary>
    /// Reads a header from the first bytes of a file; as much as the first cluster, if the file has that much.
    /// A check accepts a header with a <see cref="RefcountTableFault"/>, which its repair can fix.
    /// </summary>
    /// <exception cref="TargetException">It is none, or not one that can be served; the message says why.</exception>
    public static Qcow2Header Parse(string path, ReadOnlySpan<byte> bytes, bool isForCheck = false)
    {
        if (bytes.Length < Version2Length || !bytes.StartsWith(Magic) || bytes[3] != 0xFB)
            throw new TargetException(
                $"{path} is no qcow2 image", "correct the target, or make one with 'ublkback image create'");
        int version = (int)Uint(bytes, 4);
        if (version is not (2 or 3))
            throw new TargetException($"{path} is qcow2 of version {version}, and this program knows 2 and 3");
        if (version == 3 && bytes.Length < 104) throw Broken(path, "its header is cut short");
        uint headerLength = version == 3 ? Uint(bytes, 100) : Version2Length;
        if (headerLength < (version == 3 ? 104 : Version2Length) || headerLength > bytes.Length
            || headerLength % 8 != 0)
            throw Broken(path, $"its header has {headerLength} bytes");

        Qcow2Layout layout = new((int)Uint(bytes, 20), version == 3 ? (int)Uint(bytes, 96) : 4);
        if (layout.ClusterBits is < Qcow2Layout.MinClusterBits or > Qcow2Layout.MaxClusterBits)
            throw Broken(path, $"its clusters have 2^{layout.ClusterBits} bytes");
        if (layout.RefcountOrder is < 0 or > Qcow2Layout.MaxRefcountOrder)
            throw Broken(path, $"its reference counts have 2^{layout.RefcountOrder} bits");
        if (Uint(bytes, 32) != 0)
            throw new TargetException(
                $"{path} is encrypted by qcow2, which is not supported",
                "use the hook crypt over an image that is not");
        bytes = bytes[..Math.Min(bytes.Length, layout.ClusterSize)];

        Qcow2Header header = new()
        {
            Version = version,
            Layout = layout,
            VirtualSize = Long(bytes, VirtualSizeAt),
            L1Size = (int)Uint(bytes, L1SizeAt),
            L1Offset = Long(bytes, L1OffsetAt),
            RefcountTableOffset = Long(bytes, RefcountTableAt),
            RefcountTableClusters = (int)Uint(bytes, 56),
            SnapshotCount = (int)Uint(bytes, SnapshotsAt),
            SnapshotsOffset = Long(bytes, 64),
            Incompatible = version == 3 ? (ulong)Long(bytes, IncompatibleAt) : 0,
            Compatible = version == 3 ? (ulong)Long(bytes, 80) : 0,
            Autoclear = version == 3 ? (ulong)Long(bytes, AutoclearAt) : 0,
            Compression =
                headerLength > CompressionAt ? (CompressionType)bytes[CompressionAt] : CompressionType.Deflate,
            BackingFile = ReadBackingFile(path, bytes),
        };
        header = header.WithExtensions(path, bytes, (int)headerLength);
        header.CheckFeatures(path, bytes, (int)headerLength);
        header.CheckTables(path);
        return isForCheck || header.RefcountTableFault is not string fault ? header : throw Broken(path, fault);
    }

    private void CheckFeatures(string path, ReadOnlySpan<byte> bytes, int extensions)
    {
        ulong unknown = Incompatible & ~(DirtyFeature | CorruptFeature | CompressionFeature);
        if (unknown == 0)
        {
            CheckCompression(path);
            return;
        }

        string name = unknown switch
        {
            _ when (unknown & ExternalDataFeature) != 0 => "an external data file",
            _ when (unknown & ExtendedL2Feature) != 0 => "subclusters (extended_l2)",
            _ => FindFeatureName(bytes, extensions, unknown),
        };
        throw new TargetException(
            $"{path} uses {name}, which is not supported", "convert it with 'qemu-img convert -O qcow2'");
    }

    private void CheckCompression(string path)
    {
        if ((Compression != CompressionType.Deflate) != ((Incompatible & CompressionFeature) != 0))
            throw Broken(path, $"its compression type is {(byte)Compression}, and its feature bit says otherwise");
        if (!Enum.IsDefined(Compression))
            throw new TargetException(
                $"{path} has clusters of compression type {(byte)Compression}, which is not supported",
                "convert it with 'qemu-img convert -O qcow2'");
    }

    private void CheckTables(string path)
    {
        if (VirtualSize < 0) throw Broken(path, $"the disk has {VirtualSize} bytes");
        long needed = Layout.L1EntriesFor(VirtualSize);
        if (needed > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
            throw new TargetException(
                $"{path}: a disk of {VirtualSize} bytes needs larger clusters than {Layout.ClusterSize} bytes",
                "make it anew with --cluster-size");
        if (L1Size < needed || L1Size > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
            throw Broken(path, $"its table of level 1 has {L1Size} entries and the disk needs {needed}");
        if (L1Size > 0 && !IsTable(L1Offset)) throw Broken(path, $"its table of level 1 is at {L1Offset}");
        if (SnapshotCount is < 0 or > MaxSnapshots || (SnapshotCount > 0 && !IsTable(SnapshotsOffset)))
            throw Broken(path, $"it has {(uint)SnapshotCount} snapshots at {SnapshotsOffset}");
    }

    private bool IsTable(long offset) => offset >= Layout.ClusterSize && Layout.IsAligned(offset) && offset < 1L << 56;

    private Qcow2Header WithExtensions(string path, ReadOnlySpan<byte> bytes, int at)
    {
        Qcow2Header header = this;
        while (at + 8 <= bytes.Length && Uint(bytes, at) is uint type and not 0)
        {
            uint length = Uint(bytes, at + 4);
            if (length > bytes.Length - at - 8) throw Broken(path, $"a header extension has {length} bytes");
            ReadOnlySpan<byte> content = bytes.Slice(at + 8, (int)length);
            if (type == BackingFormatExtension)
                header = header with { BackingFormat = Encoding.UTF8.GetString(content) };
            if (type == BitmapDirectory.Extension && (Autoclear & BitmapDirectory.AutoclearFeature) != 0)
                header = header with { Bitmaps = BitmapDirectory.Parse(path, content) };
            if (type == EncryptionExtension)
                throw new TargetException($"{path} is encrypted by qcow2, which is not supported");
            at += 8 + (((int)length + 7) & ~7);
            // The name of the backing file may follow at once; it is no extension.
            if (BackingFile is not null && at >= Long(bytes, 8)) break;
        }

        return header;
    }

    private static string FindFeatureName(ReadOnlySpan<byte> bytes, int at, ulong unknown)
    {
        int bit = System.Numerics.BitOperations.TrailingZeroCount(unknown);
        while (at + 8 <= bytes.Length && Uint(bytes, at) is uint type and not 0)
        {
            int length = (int)Math.Min(Uint(bytes, at + 4), (uint)(bytes.Length - at - 8));
            for (int i = at + 8; type == FeatureNamesExtension
                && i + FeatureNameSize <= at + 8 + length; i += FeatureNameSize)
            {
                if (bytes[i] == 0 && bytes[i + 1] == bit)
                {
                    string name = Encoding.UTF8.GetString(bytes.Slice(i + 2, FeatureNameSize - 2)).TrimEnd('\0');
                    return $"the feature '{name}'";
                }
            }

            at += 8 + ((length + 7) & ~7);
        }

        return $"an unknown feature (bit {bit})";
    }

    private static string? ReadBackingFile(string path, ReadOnlySpan<byte> bytes)
    {
        long offset = Long(bytes, 8);
        uint length = Uint(bytes, 16);
        if (offset == 0 || length == 0) return null;
        if (length > MaxBackingName || offset < Version2Length || offset > bytes.Length - length)
            throw Broken(path, "the name of its backing file lies outside of the header");
        return Encoding.UTF8.GetString(bytes.Slice((int)offset, (int)length));
    }

    private static uint Uint(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32BigEndian(bytes[at..]);

    private static long Long(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadInt64BigEndian(bytes[at..]);

    private static TargetException Broken(string path, string how) =>
        new($"{path} is broken: {how}", "look at it with 'ublkback image check'");
}
