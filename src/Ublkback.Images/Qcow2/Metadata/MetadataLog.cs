using System.Buffers.Binary;
using Mono.Unix.Native;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The changes of level 2 that were answered to the guest and are not in the file yet, kept in memory that outlives
/// this process: a guest must not lose what was acknowledged when the daemon is killed, and the tables must not be
/// written before what they point to is durable. On the image's worker.
/// </summary>
/// <remarks>
/// A ring of entries in a mapped file of a file system in memory. Little-endian: 0 magic; 8 version; 16 entries ever
/// committed; 24 entries ever added; from 64 on the entries, each the guest's cluster and its entry of level 2. An
/// entry is written before it is counted. The file belongs to the image that has the device and inode of its name. It
/// is to be believed only while the image's header says that it is dirty: other programs clear that when they write the
/// image.
/// </remarks>
internal sealed class MetadataLog : IDisposable
{
    /// <summary>Most changes that are not in the file yet.</summary>
    public const int Capacity = 4096;

    private const int Version = 1;
    private const int VersionAt = 8;
    private const int CommittedAt = 16;
    private const int AddedAt = 24;
    private const int EntriesAt = 64;
    private const int EntrySize = 16;
    private const int Size = EntriesAt + (Capacity * EntrySize);

    private readonly string? _path;
    private readonly MemoryMapping _mapping;

    private MetadataLog(string? path, MemoryMapping mapping)
    {
        _path = path;
        _mapping = mapping;
    }

    /// <summary>Whether it outlives this process.</summary>
    public bool IsKept => _path is not null;

    /// <summary>Entries that were ever added.</summary>
    public long Added
    {
        get => Read(AddedAt);
        private set => Write(AddedAt, value);
    }

    /// <summary>Entries that were ever committed to the file.</summary>
    public long Committed
    {
        get => Read(CommittedAt);
        set => Write(CommittedAt, value);
    }

    /// <summary>Entries that there is room for.</summary>
    public int Room => Capacity - (int)(Added - Committed);

    private static ReadOnlySpan<byte> Magic => "UBLKQCOW"u8;

    /// <summary>A log that ends with this process.</summary>
    public static MetadataLog InMemory() => new(null, MemoryMapping.Anonymous(Size));

    /// <summary>
    /// Opens the log at a path, or makes an empty one. Blocks.
    /// </summary>
    /// <param name="path">Where it is.</param>
    /// <param name="isBelieved">Whether what a log that is there says is true of the image; otherwise it is
    /// emptied.</param>
    /// <exception cref="LinuxException">There is no room for it.</exception>
    public static MetadataLog Open(string path, bool isBelieved)
    {
        using FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR | OpenFlags.O_CREAT);
        int errno = Syscall.posix_fallocate(file.Number, 0, Size);
        if (errno != 0) throw new LinuxException(errno, path);
        MetadataLog log = new(path, MemoryMapping.Shared(file, 0, Size));
        if (!isBelieved || !log.IsSound()) log.Clear();
        return log;
    }

    /// <summary>An entry that is not committed.</summary>
    public (long GuestCluster, L2Entry Entry) this[long number]
    {
        get
        {
            ReadOnlySpan<byte> entry = EntryAt(number);
            return (BinaryPrimitives.ReadInt64LittleEndian(entry),
                new L2Entry(BinaryPrimitives.ReadUInt64LittleEndian(entry[8..])));
        }
    }

    /// <summary>Adds a change. There must be room.</summary>
    public void Add(long guestCluster, L2Entry entry)
    {
        if (Room == 0) throw new InvalidOperationException("the log is full");
        Span<byte> place = EntryAt(Added);
        BinaryPrimitives.WriteInt64LittleEndian(place, guestCluster);
        BinaryPrimitives.WriteUInt64LittleEndian(place[8..], entry.Value);
        Added++;
    }

    /// <summary>The image is complete without it: takes it away. Any thread.</summary>
    public void Delete()
    {
        if (_path is not null) File.Delete(_path);
    }

    /// <inheritdoc/>
    public void Dispose() => _mapping.Dispose();

    private bool IsSound() =>
        _mapping.Head(Size).StartsWith(Magic)
            && BinaryPrimitives.ReadInt32LittleEndian(_mapping.Head(Size)[VersionAt..]) == Version
        && Committed >= 0 && Added >= Committed && Added - Committed <= Capacity;

    private void Clear()
    {
        _mapping.Head(Size).Clear();
        Magic.CopyTo(_mapping.Head(Size));
        BinaryPrimitives.WriteInt32LittleEndian(_mapping.Head(Size)[VersionAt..], Version);
    }

    private Span<byte> EntryAt(long number) =>
        _mapping.Head(Size).Slice(EntriesAt + ((int)(number % Capacity) * EntrySize), EntrySize);

    private long Read(int at) => BinaryPrimitives.ReadInt64LittleEndian(_mapping.Head(Size)[at..]);

    // The processor keeps the order of stores, and the compiler that of a volatile one.
    private void Write(int at, long value)
    {
        Thread.MemoryBarrier();
        BinaryPrimitives.WriteInt64LittleEndian(_mapping.Head(Size)[at..], value);
    }
}
