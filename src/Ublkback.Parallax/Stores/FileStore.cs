using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// VDIs in a folder: <c>store</c> says that it is one, <c>vdi/NUMBER</c> are the VDIs' files, and <c>names/NAME</c> are
/// symbolic links to them. A file without a name is kept as long as clones read it. Any thread; blocks it.
/// </summary>
internal sealed class FileStore : IVdiStore
{
    /// <summary>Where the store is unless something else is said.</summary>
    public const string DefaultFolder = "/var/lib/ublkback/vdi";

    private const long PinBase = 1L << 61; // bytes whose locks keep snapshots from being deleted
    private const long FirstDiskId = 1L << 60; // for files that are only read, of which no process has I/O that matters

    private static long _lastDisk;

    private readonly string _names;
    private readonly string _files;

    private FileStore(string folder, Guid id)
    {
        Folder = folder;
        Id = id;
        _names = Path.Combine(folder, "names");
        _files = Path.Combine(folder, "vdi");
    }

    /// <summary>The folder.</summary>
    public string Folder { get; }

    public string Description => Folder;

    public Guid Id { get; }

    public IReadOnlyList<string> Names =>
        [.. Directory.EnumerateFileSystemEntries(_names).Select(Path.GetFileName).Order(StringComparer.Ordinal)!];

    public IReadOnlyList<uint> Numbers => [.. Directory.EnumerateFiles(_files)
        .Select(path => uint.TryParse(
            Path.GetFileName(path), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint vdi) ? vdi : 0)
        .Where(vdi => vdi != 0).Order()];

    /// <summary>Opens the store in a folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="makes">Whether a new one is made in a folder that is empty or not there.</param>
    /// <exception cref="TargetException">There is none; the message says how to mend it.</exception>
    public static FileStore Open(string folder, bool makes = false)
    {
        if (!folder.StartsWith('/'))
            throw new TargetException($"the store {folder} is not an absolute path", "begin it with /");
        string path = Path.Combine(folder, "store");
        try
        {
            if (!File.Exists(path))
            {
                bool isEmpty = !Directory.Exists(folder) || !Directory.EnumerateFileSystemEntries(folder).Any();
                if (!isEmpty)
                    throw new TargetException(
                        $"{folder} is no store of VDIs, and is not empty",
                        "give another folder with --store file:FOLDER");
                if (!makes)
                    throw new TargetException(
                        $"there is no store of VDIs in {folder}: 'ublkback vdi create' makes one");
                Make(folder, path);
            }

            byte[] block = File.ReadAllBytes(path);
            Array.Resize(ref block, VdiFormat.BlockSize);
            return new FileStore(folder, StoreBlock.Read(block, path));
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"the store in {folder} cannot be opened: {failure.Message}", failure);
        }
    }

    public uint Find(string name)
    {
        string? link = new FileInfo(Path.Combine(_names, VdiName.Check(name))).LinkTarget;
        if (link is null) throw new TargetException($"there is no VDI {name} in {Folder}", "see 'ublkback vdi list'");
        return uint.TryParse(Path.GetFileName(link), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint vdi)
            && vdi is > 0 and <= BlockAddress.MaxVdi
            ? vdi
            : throw new TargetException(
                $"{Path.Combine(_names, name)} does not point to the file of a VDI: it is damaged");
    }

    /// <summary>The path of a VDI's file.</summary>
    public string PathOf(uint vdi) => Path.Combine(_files, string.Create(CultureInfo.InvariantCulture, $"{vdi:x6}"));

    public IVdiContainer OpenOwn(string name, string cache, ImageOpening opening)
    {
        uint vdi = Find(name);
        try
        {
            FileContainer container = FileContainer.Open(
                PathOf(vdi), cache, isLocked: true, opening with { SharingGroup = null });
            if (!opening.IsReadOnly)
                container.Write(VdiFormat.HolderBlock, WriterRecord.ForThis(opening.Owner).ToBlock());
            return container;
        }
        catch (ImageInUseException)
        {
            throw new ImageInUseException(
                $"VDI {name} is in use by {ReadHolder(vdi)?.ToString() ?? "another program"}");
        }
    }

    // The kernel takes the locks of the dead.
    public void BreakLock(string name, Action<string> warn)
    {
        uint vdi = Find(name);
        if (IsWritten(vdi))
            throw new ImageInUseException(
                $"VDI {name} is in use by {ReadHolder(vdi)?.ToString() ?? "another program"}, which is alive",
                "detach the disk, or end that process");
    }

    public (IVdiContainer Container, VdiSuperblock Superblock) OpenOther(uint vdi, Action<string> warn)
    {
        FileContainer container = FileContainer.Open(
            PathOf(vdi), "none", isLocked: false,
            new ImageOpening("a reader of a VDI", NextDiskId(), true, false, null, warn));
        try
        {
            byte[] block = new byte[VdiFormat.BlockSize];
            container.Read(VdiFormat.SuperblockBlock, block);
            VdiSuperblock superblock = VdiSuperblock.Read(block, container.Path);
            return superblock.Store == Id && superblock.Vdi == vdi
                ? (container, superblock)
                : throw new TargetException($"{container.Path} is the file of VDI {superblock.Vdi:x6} of store "
                    + $"{superblock.Store}, and not of this one");
        }
        catch
        {
            container.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw;
        }
    }

    public IVdiContainer OpenUnnamed(uint vdi, Action<string> warn) => FileContainer.Open(
        PathOf(vdi), "writeback", isLocked: true,
        new ImageOpening("a collector", NextDiskId(), false, false, null, warn));

    public IDisposable Pin(uint vdi, ulong snapshot)
    {
        FileDescriptor file = FileDescriptor.Open(PathOf(vdi), OpenFlags.O_RDONLY);
        if (OfdLock.TryShare(file, PinBase + (long)snapshot)) return file;
        file.Dispose();
        throw new TargetException("the snapshot is being deleted");
    }

    public bool IsPinned(uint vdi, ulong snapshot)
    {
        using FileDescriptor file = FileDescriptor.Open(PathOf(vdi), OpenFlags.O_RDWR);
        return OfdLock.IsHeldByAnother(file, PinBase + (long)snapshot);
    }

    public bool IsWritten(uint vdi)
    {
        using FileDescriptor file = FileDescriptor.Open(PathOf(vdi), OpenFlags.O_RDONLY);
        return RawImageOpener.IsWritten(file);
    }

    public WriterRecord? ReadHolder(uint vdi)
    {
        using SafeFileHandle file = File.OpenHandle(
            PathOf(vdi), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        byte[] block = new byte[VdiFormat.BlockSize];
        _ = RandomAccess.Read(file, block, VdiFormat.OffsetOf(VdiFormat.HolderBlock));
        return WriterRecord.TryRead(block);
    }

    public IDisposable LockStructure() => LockByte(0, "another command changes the VDIs of");

    public IDisposable LockCollection() =>
        LockByte(1, "somebody is looking already for what is not needed any more in");

    public void Create(string name, Func<uint, VdiVersion> content, string origin)
    {
        string link = Path.Combine(_names, VdiName.Check(name));
        if (new FileInfo(link).LinkTarget is not null)
            throw new TargetException($"there is a VDI {name} already in {Folder}", "choose another name");
        uint vdi = (Numbers is [.., uint last] ? last : 0) + 1;
        if (vdi > BlockAddress.MaxVdi)
            throw new TargetException($"the store in {Folder} has had as many VDIs as it can");
        VdiSuperblock superblock = new(Id, vdi, Guid.NewGuid(), DateTimeOffset.UtcNow.ToUnixTimeMilliseconds());
        string path = PathOf(vdi);
        byte[] blocks = VdiMetadata.Make(superblock, content(vdi), origin);
        try
        {
            using (SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write))
            {
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
                RandomAccess.Write(file, blocks, 0);
                RandomAccess.FlushToDisk(file);
            }

            Sync(_files);
            File.CreateSymbolicLink(link, Path.Combine("..", "vdi", Path.GetFileName(path)));
            Sync(_names);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            File.Delete(path);
            throw new TargetException($"VDI {name} cannot be made: {failure.Message}", failure);
        }
    }

    public void Unlink(string name)
    {
        File.Delete(Path.Combine(_names, VdiName.Check(name)));
        Sync(_names);
    }

    public void Remove(uint vdi)
    {
        File.Delete(PathOf(vdi));
        Sync(_files);
    }

    public bool Exists(uint vdi) => File.Exists(PathOf(vdi));

    public long MeasureUsage(uint vdi) => DiskUsage.Of(PathOf(vdi));

    public IDisposable Listen(uint vdi, MessageDispatcher requests) => new FileStoreSocket(SocketFolder, vdi, requests);

    public Task<byte[]?> TryAskAsync(uint vdi, byte[] request) =>
        FileStoreSocket.TryAskAsync(SocketFolder, vdi, request);

    public void Dispose()
    {
        // It has nothing open by itself.
    }

    private string SocketFolder => Path.Combine(Folder, "doors");

    private FileDescriptor LockByte(long position, string what)
    {
        const int PatienceMs = 10_000;
        const int RetryDelayMs = 5;
        FileDescriptor file = FileDescriptor.Open(Path.Combine(Folder, "store"), OpenFlags.O_RDWR);
        for (int waited = 0; !OfdLock.TryExclude(file, position); waited += RetryDelayMs)
        {
            if (waited < PatienceMs)
            {
                Thread.Sleep(RetryDelayMs);
                continue;
            }

            file.Dispose();
            throw new ImageInUseException(
                $"{what} {Folder}, and has not ended for {PatienceMs / 1000} s", "try again later");
        }

        return file;
    }

    private static long NextDiskId() =>
        FirstDiskId | ((long)Environment.ProcessId << 32) | (uint)Interlocked.Increment(ref _lastDisk);

    private static void Make(string folder, string path)
    {
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(folder, Private);
        foreach (string part in new[] { "names", "vdi", "doors" })
            Directory.CreateDirectory(Path.Combine(folder, part), Private);
        using (SafeFileHandle file = File.OpenHandle(path + ".new", FileMode.Create, FileAccess.Write))
        {
            RandomAccess.Write(file, StoreBlock.Make(), 0);
            RandomAccess.FlushToDisk(file);
        }

        File.Move(path + ".new", path); // last, so that what is there is complete
        Sync(folder);
    }

    private static void Sync(string folder)
    {
        using FileDescriptor directory = FileDescriptor.Open(folder, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);
        if (Syscall.fsync(directory.Number) != 0) throw new IOException($"{folder} could not be made durable");
    }
}
