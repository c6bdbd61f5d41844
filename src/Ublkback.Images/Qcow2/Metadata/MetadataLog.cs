using System.Buffers.Binary;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The changes of level 2 that were answered to the guest and are not in the file yet, kept in memory that outlives
/// this process: a guest must not lose what was acknowledged when the daemon is killed, and the tables must not be
/// written before what they point to is durable. On the image's worker.
/// </summary>
/// <remarks>
/// A ring of entries, each the guest's cluster and its entry of level 2, in a mapped file of a file system in memory
/// (<see cref="MetadataLogFile"/> finds it). An entry is written before it is counted. The log is true of the image
/// only while the image's header has the generation that the log names (<see cref="ImageGeneration"/>).
/// </remarks>
internal sealed class MetadataLog : IDisposable
{
    /// <summary>Most changes that are not in the file yet.</summary>
    public const int Capacity = 4096;

    /// <summary>Bytes of a log.</summary>
    public const int Size = EntriesAt + (Capacity * EntrySize);

    /// <summary>Bytes before the entries: the counters, and which image the log is of.</summary>
    public const int EntriesAt = 2 * MemoryMapping.PageSize;

    /// <summary>Bytes of that before <see cref="Owner"/>: magic, version, counters, generations.</summary>
    public const int OwnerAt = 64;

    private const int Version = 2;
    private const int VersionAt = 8;
    private const int CommittedAt = 16;
    private const int AddedAt = 24;
    private const int GenerationAt = 32;
    private const int NextGenerationAt = 36;
    private const int EntrySize = 16;

    private readonly string? _path;
    private readonly FileDescriptor? _file;
    private readonly MemoryMapping _mapping;

    private MetadataLog(string? path, FileDescriptor? file, MemoryMapping mapping)
    {
        _path = path;
        _file = file;
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

    /// <summary>Whether there are changes that are not in the file.</summary>
    public bool HasChanges => Added != Committed;

    /// <summary>Entries that there is room for.</summary>
    public int Room => Capacity - (int)(Added - Committed);

    /// <summary>The generation of the image that the log is of; 0 before it has one.</summary>
    public uint Generation
    {
        get => ReadGeneration(GenerationAt);
        set => WriteGeneration(GenerationAt, value);
    }

    /// <summary>The generation that the image is about to have, or has already.</summary>
    public uint NextGeneration
    {
        get => ReadGeneration(NextGenerationAt);
        set => WriteGeneration(NextGenerationAt, value);
    }

    /// <summary>What says which file the image is in.</summary>
    public Span<byte> Owner => _mapping.Head(EntriesAt)[OwnerAt..];

    /// <summary>Whether this is a log that this program can read.</summary>
    public bool IsSound =>
        _mapping.Head(Size).StartsWith(Magic)
            && BinaryPrimitives.ReadInt32LittleEndian(_mapping.Head(Size)[VersionAt..]) == Version
            && Committed >= 0 && Added >= Committed && Added - Committed <= Capacity;

    /// <summary>Whether nothing was ever written to it.</summary>
    public bool IsNew => !_mapping.Head(Size).ContainsAnyExcept((byte)0);

    private static ReadOnlySpan<byte> Magic => "UBLKQCOW"u8;

    /// <summary>A log that ends with this process.</summary>
    public static MetadataLog InMemory() => new(null, null, MemoryMapping.Anonymous(Size));

    /// <summary>A log in a file of its size.</summary>
    /// <param name="path">Where the file is.</param>
    /// <param name="file">The file; owned.</param>
    /// <param name="isWritable">Whether it is changed.</param>
    public static MetadataLog In(string path, FileDescriptor file, bool isWritable) =>
        new(path, file, MemoryMapping.Shared(file, 0, Size, isWritable));

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

    /// <summary>Whether it is of an image that has a generation.</summary>
    public bool IsOf(uint generation) => generation != 0 && (generation == Generation || generation == NextGeneration);

    /// <summary>Adds a change. There must be room.</summary>
    public void Add(long guestCluster, L2Entry entry)
    {
        if (Room == 0) throw new InvalidOperationException("the log is full");
        Span<byte> place = EntryAt(Added);
        BinaryPrimitives.WriteInt64LittleEndian(place, guestCluster);
        BinaryPrimitives.WriteUInt64LittleEndian(place[8..], entry.Value);
        Added++;
    }

    /// <summary>
    /// Takes the changes of another log of the same state of the image, which may be in use. It must be empty; if this
    /// process is killed meanwhile, it is of no generation.
    /// </summary>
    /// <returns>False if the other log went on to another state meanwhile, so that nothing was taken.</returns>
    public bool TryCopyChanges(MetadataLog other, uint generation)
    {
        (long committed, long added) = (other.Committed, other.Added);
        other._mapping.Head(Size)[EntriesAt..].CopyTo(_mapping.Head(Size)[EntriesAt..]);
        Thread.MemoryBarrier();
        if (!other.IsOf(generation) || other.Committed != committed) return false;
        (Committed, Added) = (committed, added);
        Generation = generation;
        return true;
    }

    /// <summary>Makes it an empty log of no generation.</summary>
    public void Clear()
    {
        _mapping.Head(Size).Clear();
        Magic.CopyTo(_mapping.Head(Size));
        BinaryPrimitives.WriteInt32LittleEndian(_mapping.Head(Size)[VersionAt..], Version);
    }

    /// <summary>The image is complete without it: takes it away. Any thread.</summary>
    public void Delete()
    {
        if (_path is not null) File.Delete(_path);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _mapping.Dispose();
        _file?.Dispose();
    }

    private Span<byte> EntryAt(long number) =>
        _mapping.Head(Size).Slice(EntriesAt + ((int)(number % Capacity) * EntrySize), EntrySize);

    private long Read(int at) => BinaryPrimitives.ReadInt64LittleEndian(_mapping.Head(Size)[at..]);

    private uint ReadGeneration(int at) => BinaryPrimitives.ReadUInt32LittleEndian(_mapping.Head(Size)[at..]);

    // The processor keeps the order of stores, and the compiler that of a volatile one.
    private void Write(int at, long value)
    {
        Thread.MemoryBarrier();
        BinaryPrimitives.WriteInt64LittleEndian(_mapping.Head(Size)[at..], value);
    }

    private void WriteGeneration(int at, uint value)
    {
        Thread.MemoryBarrier();
        BinaryPrimitives.WriteUInt32LittleEndian(_mapping.Head(Size)[at..], value);
    }
}
