using System.Buffers.Binary;
using System.Text.Json;
using Mono.Unix.Native;
using Ublkback.Blkif;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Journals;

/// <summary>Why a journal cannot be used.</summary>
public sealed class JournalException(string message) : Exception(message);

/// <summary>
/// The journal of a connected vbd: a mapped file with a head, which says what it speaks of, and a
/// <see cref="RingJournal"/>
/// for each queue. Making and opening block.
/// </summary>
/// <remarks>
/// Head, little-endian: 0 magic; 8 version; 12 offset of the first ring's journal; 16 length of the identity; 20
/// whether writes were lost (0 or 1); 24 the identity as JSON.
/// </remarks>
public sealed class VbdJournal : IDisposable
{
    /// <summary>The version that is written, and the latest that is understood.</summary>
    public const int Version = 2;

    private const int VersionOffset = 8;
    private const int RingsOffset = 12;
    private const int LengthOffset = 16;
    private const int LossOffset = 20;
    private const int IdentityOffset = 24;
    private const int MaxHeadSize = 1 << 16;

    private readonly MemoryMapping _mapping;
    private readonly int _ringsAt;
    private readonly int _slotCount;

    private VbdJournal(MemoryMapping mapping, int ringsAt, JournalIdentity identity)
    {
        _mapping = mapping;
        _ringsAt = ringsAt;
        _slotCount = SlotCountOf(identity);
        Identity = identity;
    }

    /// <summary>What it speaks of.</summary>
    public JournalIdentity Identity { get; }

    /// <summary>Whether writes may be lost that were answered: a flush failed. Never taken back.</summary>
    public bool HasLostWrites
    {
        get => _mapping.Head(IdentityOffset)[LossOffset] != 0;
        set => _mapping.Head(IdentityOffset)[LossOffset] = value ? (byte)1 : (byte)0;
    }

    private static ReadOnlySpan<byte> Magic => "UBLKJRNL"u8;

    /// <summary>Makes an empty journal, in the place of one that there may be.</summary>
    /// <exception cref="LinuxException">There is no room for it.</exception>
    public static VbdJournal Create(string path, JournalIdentity identity)
    {
        byte[] text = JsonSerializer.SerializeToUtf8Bytes(identity, JournalJson.Default.JournalIdentity);
        int ringsAt = RoundUp(IdentityOffset + text.Length);
        long size = ringsAt + (identity.Queues.Count * RingJournal.SizeOf(SlotCountOf(identity)));
        File.Delete(path + ".new");
        using FileDescriptor file = FileDescriptor.Open(
            path + ".new", OpenFlags.O_RDWR | OpenFlags.O_CREAT | OpenFlags.O_EXCL);
        // Memory that is not there would be noticed only when a request is written to it.
        int errno = Syscall.posix_fallocate(file.Number, 0, (ulong)size);
        if (errno != 0) throw new LinuxException(errno, "posix_fallocate");
        MemoryMapping mapping = MemoryMapping.Shared(file, 0, size);
        Span<byte> head = mapping.Head(ringsAt);
        Magic.CopyTo(head);
        BinaryPrimitives.WriteInt32LittleEndian(head[VersionOffset..], Version);
        BinaryPrimitives.WriteInt32LittleEndian(head[RingsOffset..], ringsAt);
        BinaryPrimitives.WriteInt32LittleEndian(head[LengthOffset..], text.Length);
        text.CopyTo(head[IdentityOffset..]);
        KillPoint.Reach("JournalMade");
        File.Move(path + ".new", path, overwrite: true);
        return new VbdJournal(mapping, ringsAt, identity);
    }

    /// <summary>Opens a journal; null when there is none.</summary>
    /// <exception cref="JournalException">It is of another version, or none at all.</exception>
    public static VbdJournal? Open(string path)
    {
        if (!File.Exists(path)) return null;
        using FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR);
        long length = FileStatus.Of(file).Length;
        if (length < IdentityOffset) throw Broken(path);
        MemoryMapping mapping = MemoryMapping.Shared(file, 0, length);
        try
        {
            ReadOnlySpan<byte> head = mapping.Head((int)Math.Min(length, MaxHeadSize));
            if (!head.StartsWith(Magic)) throw Broken(path);
            int version = BinaryPrimitives.ReadInt32LittleEndian(head[VersionOffset..]);
            if (version != Version)
            {
                throw new JournalException(
                    $"{path} has journal format {version}, and this daemon knows {Version}: start the ublkback that "
                    + "wrote it; the disk stays as it is");
            }

            int ringsAt = BinaryPrimitives.ReadInt32LittleEndian(head[RingsOffset..]);
            int textLength = BinaryPrimitives.ReadInt32LittleEndian(head[LengthOffset..]);
            if (textLength < 0 || textLength > head.Length - IdentityOffset) throw Broken(path);
            JournalIdentity identity =
                JsonSerializer.Deserialize(head.Slice(IdentityOffset, textLength), JournalJson.Default.JournalIdentity)
                ?? throw Broken(path);
            if (ringsAt + (identity.Queues.Count * RingJournal.SizeOf(SlotCountOf(identity))) != length)
                throw Broken(path);
            return new VbdJournal(mapping, ringsAt, identity);
        }
        catch (Exception failure)
        {
            mapping.Dispose();
            if (failure is JsonException) throw Broken(path);
            throw;
        }
    }

    /// <summary>The journal of one queue's ring.</summary>
    public RingJournal Ring(int queue) =>
        new(_mapping.AddressNumber + _ringsAt + (nint)(queue * RingJournal.SizeOf(_slotCount)), _slotCount);

    /// <summary>Unmaps it; what it says stays.</summary>
    public void Dispose() => _mapping.Dispose();

    private static int SlotCountOf(JournalIdentity identity) =>
        BlkifConstants.SlotCount(ringPageOrder: 0) * identity.Queues[0].RingReferences.Count;

    private static int RoundUp(int size) =>
        (size + MemoryMapping.PageSize - 1) / MemoryMapping.PageSize * MemoryMapping.PageSize;

    private static JournalException Broken(string path) => new($"{path} is no journal, or was cut short");
}
