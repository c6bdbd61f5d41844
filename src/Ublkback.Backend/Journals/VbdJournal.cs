using System.Buffers.Binary;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mono.Unix.Native;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Journals;

/// <summary>A journal cannot be used. The message says why.</summary>
internal sealed class JournalException(string problem, string? remedy = null, Exception? cause = null)
    : UserException(problem, remedy, cause);

/// <summary>A journal is of other rings than those that the frontend has now.</summary>
internal sealed class OtherRingsException(string problem) : UserException(problem);

/// <summary>
/// The journal of a connected vbd, which lets the next daemon complete the requests in flight: a mapped file with a
/// head and a <see cref="RingJournal"/> for each queue.
/// </summary>
/// <remarks>
/// Create and Open block: call them on a helper thread. Invariant: a file with the journal's final name is complete.
/// Head, little-endian: 0 magic; 8 version; 12 offset of the first ring's journal; 16 length of the identity; 20
/// whether writes were lost (0 or 1); 24 the identity as JSON.
/// </remarks>
public sealed class VbdJournal : IDisposable
{
    /// <summary>The format version that this daemon writes, and the only one that it reads.</summary>
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

    /// <summary>The rings and the image that the journal belongs to.</summary>
    public JournalIdentity Identity { get; }

    /// <summary>True if a flush failed, so acknowledged writes may be lost. Never reset.</summary>
    public bool HasLostWrites
    {
        get => _mapping.Head(IdentityOffset)[LossOffset] != 0;
        set => _mapping.Head(IdentityOffset)[LossOffset] = value ? (byte)1 : (byte)0;
    }

    private static ReadOnlySpan<byte> Magic => "UBLKJRNL"u8;

    /// <summary>Creates an empty journal, and replaces an existing one.</summary>
    /// <exception cref="LinuxException">There is no space for it.</exception>
    public static VbdJournal Create(string path, JournalIdentity identity)
    {
        byte[] text = JsonSerializer.SerializeToUtf8Bytes(identity, JournalJson.Default.JournalIdentity);
        int ringsAt = RoundUp(IdentityOffset + text.Length);
        long size = ringsAt + (identity.Queues.Count * RingJournal.SizeOf(SlotCountOf(identity)));
        File.Delete(path + ".new");
        using FileDescriptor file = FileDescriptor.Open(
            path + ".new", OpenFlags.O_RDWR | OpenFlags.O_CREAT | OpenFlags.O_EXCL);
        // Without this, a lack of memory would show only when a request is written to the journal.
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

    /// <summary>Opens a journal. Returns null if there is none.</summary>
    /// <exception cref="JournalException">The file has another version, or is not a journal.</exception>
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
                    $"{path} has journal format {version}, and this daemon knows {Version}",
                    "start the ublkback that wrote it; the disk stays as it is");
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
            if (failure is JsonException) throw Broken(path, failure);
            throw;
        }
    }

    /// <summary>The journal of one queue's ring.</summary>
    public RingJournal Ring(int queue) =>
        new(_mapping.AddressNumber + _ringsAt + (nint)(queue * RingJournal.SizeOf(_slotCount)), _slotCount);

    /// <summary>Unmaps the journal. The file stays.</summary>
    public void Dispose() => _mapping.Dispose();

    private static int SlotCountOf(JournalIdentity identity) =>
        BlkifConstants.SlotCount(ringPageOrder: 0) * identity.Queues[0].RingReferences.Count;

    private static int RoundUp(int size) =>
        (size + MemoryMapping.PageSize - 1) / MemoryMapping.PageSize * MemoryMapping.PageSize;

    private static JournalException Broken(string path, Exception? cause = null) =>
        new($"{path} is not a journal, or is truncated", cause: cause);
}

/// <summary>Identifies the rings and the image that a journal belongs to.</summary>
/// <param name="Frontend">The frontend's directory.</param>
/// <param name="Machine">The virtual machine's own path; null when unknown.</param>
/// <param name="Image">The image's identity.</param>
/// <param name="Protocol">The rings' layout.</param>
/// <param name="Queues">The queues, as the frontend described them.</param>
public sealed record JournalIdentity(
    string Frontend, string? Machine, string Image, string Protocol, IReadOnlyList<FrontendQueue> Queues)
{
    /// <summary>Returns true if it is of the same rings.</summary>
    public bool HasRingsOf(JournalIdentity now) => Protocol == now.Protocol && Queues.SequenceEqual(now.Queues);

    /// <summary>
    /// Says why this journal does not fit the given rings and image. Returns null if it fits.
    /// </summary>
    public string? DifferenceFrom(JournalIdentity now)
    {
        if (Frontend != now.Frontend || Machine != now.Machine) return "its guest is another one now";
        if (!HasRingsOf(now)) return "the guest's rings are others now";
        return Image == now.Image
            ? null
            : $"its image is another one now ({now.Image}, before {Image}): put the one before in its place";
    }
}

[JsonSerializable(typeof(JournalIdentity))]
internal sealed partial class JournalJson : JsonSerializerContext;
