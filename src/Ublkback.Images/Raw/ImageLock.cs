using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// Keeps an image to one writer or many readers, with the lock bytes of QEMU (block/file-posix.c), so that QEMU's
/// tools, other hosts on a network file system and we exclude each other.
/// </summary>
/// <remarks>
/// A byte at 100 + n, locked shared, says "I use permission n"; one at 200 + n says "others must not use it". Who has
/// taken its bytes looks for conflicting ones: both of two rivals may see each other and step back, never neither.
/// Within this process a table tells who holds what, since disks of one virtual machine may share an image.
/// </remarks>
internal sealed class ImageLock : IDisposable
{
    private const long UsedBase = 100; // RAW_LOCK_PERM_BASE
    private const long DeniedBase = 200; // RAW_LOCK_SHARED_BASE
    private const long BytesPerBase = 64;
    private const int ReadPermission = 0; // BLK_PERM_CONSISTENT_READ
    private const int WritePermission = 1; // BLK_PERM_WRITE
    private const int ResizePermission = 3; // BLK_PERM_RESIZE

    // A holder that is just closing gives way in this time.
    private const int PatienceMs = 1000;
    private const int RetryDelayMs = 10;

    private static readonly Lock Gate = new();
    private static readonly List<ImageLock> Held = [];

    private readonly (ulong Device, ulong Inode) _file;
    private readonly ImageOpening _opening;

    private ImageLock((ulong Device, ulong Inode) file, ImageOpening opening)
    {
        _file = file;
        _opening = opening;
    }

    /// <summary>
    /// Locks an open image. Blocks for a second at most. Closing the descriptor gives the bytes back.
    /// </summary>
    /// <exception cref="ImageInUseException">Somebody else uses the image.</exception>
    /// <param name="path">The path, for the error.</param>
    /// <param name="file">The open image.</param>
    /// <param name="status">Its status.</param>
    /// <param name="opening">The user of the image.</param>
    /// <param name="canShare">True if the image's scheme takes the option that leaves the lock out.</param>
    public static ImageLock Take(
        string path, FileDescriptor file, FileStatus status, ImageOpening opening, bool canShare)
    {
        ImageLock wanted = new((status.Device, status.Inode), opening);
        long deadline = Environment.TickCount64 + PatienceMs;
        while (true)
        {
            string? rival = wanted.TryTake(file);
            if (rival is null) return wanted;
            if (Environment.TickCount64 > deadline)
            {
                throw new ImageInUseException(
                    $"{path} is in use by {rival}",
                    canShare
                        ? "detach it there, or add ?share=unsafe to the target if its users know of each other"
                        : "detach it there");
            }

            Thread.Sleep(RetryDelayMs);
        }
    }

    /// <summary>Whether another description of a file is locked for writing.</summary>
    public static bool IsWritten(FileDescriptor file) => OfdLock.IsHeldByAnother(file, UsedBase + WritePermission);

    public void Dispose()
    {
        lock (Gate) Held.Remove(this);
    }

    // The rival's name, or null when the lock is ours.
    private string? TryTake(FileDescriptor file)
    {
        lock (Gate)
        {
            ImageLock? rival = Held.Find(held => held._file == _file && !held.GoesWith(this));
            if (rival is not null) return rival._opening.Owner;

            // Who shares with us holds the same bytes, so looking would find them; they have looked.
            bool hasSibling = Held.Exists(held => held._file == _file && !held._opening.IsReadOnly);
            bool isOurs = TakeBytes(file) && (hasSibling || !FindsRival(file));
            if (!isOurs)
            {
                OfdLock.Release(file, UsedBase, BytesPerBase);
                OfdLock.Release(file, DeniedBase, BytesPerBase);
                return "another program on this or another host";
            }

            Held.Add(this);
            return null;
        }
    }

    private bool GoesWith(ImageLock other) =>
        (_opening.IsReadOnly && other._opening.IsReadOnly)
        || (_opening.SharingGroup is not null && _opening.SharingGroup == other._opening.SharingGroup);

    private bool TakeBytes(FileDescriptor file)
    {
        bool taken = OfdLock.TryShare(file, UsedBase + ReadPermission)
            && OfdLock.TryShare(file, DeniedBase + WritePermission)
            && OfdLock.TryShare(file, DeniedBase + ResizePermission);
        return taken && (_opening.IsReadOnly || OfdLock.TryShare(file, UsedBase + WritePermission));
    }

    // Others deny what we use, or use what we deny.
    private bool FindsRival(FileDescriptor file) =>
        OfdLock.IsHeldByAnother(file, DeniedBase + ReadPermission)
        || OfdLock.IsHeldByAnother(file, UsedBase + WritePermission)
        || OfdLock.IsHeldByAnother(file, UsedBase + ResizePermission)
        || (!_opening.IsReadOnly && OfdLock.IsHeldByAnother(file, DeniedBase + WritePermission));
}
