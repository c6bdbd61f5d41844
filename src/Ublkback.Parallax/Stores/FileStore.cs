using System.Globalization;
using System.Security.Cryptography;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// VDIs in a folder: <c>store</c> says that it is one, <c>vdi/NUMBER</c> are the VDIs' files, and <c>names/NAME</c> are
/// symbolic links to them. <c>copies</c> has a second copy of what is small and essential. A file without a name is
/// kept as long as clones read it. Any thread; blocks it.
/// </summary>
internal sealed class FileStore : IVdiStore
{
    /// <summary>Where the store is unless something else is said.</summary>
    public const string DefaultFolder = "/var/lib/ublkback/vdi";

    private const long FirstDiskId = 1L << 60; // for files that are only read, of which no process has I/O that matters

    private static long _lastDisk;

    private readonly FileStoreNames _names;
    private readonly string _files;
    private readonly string _copies;

    private FileStore(string folder, Guid id)
    {
        Folder = folder;
        Id = id;
        _files = Path.Combine(folder, "vdi");
        _copies = Path.Combine(folder, "copies");
        _names = new FileStoreNames(folder, ReadName);
    }

    /// <summary>The folder.</summary>
    public string Folder { get; }

    public string Description => Folder;

    public Guid Id { get; }

    public IReadOnlyList<string> Names => _names.All;

    public IReadOnlyList<uint> Numbers => [.. NumbersIn(_files)];

    public IReadOnlyList<string> Strays =>
    [
        .. _names.Strays, .. new DirectoryInfo(_files).EnumerateFileSystemInfos()
            .Where(entry => NumberOf(entry) == 0).Select(entry => entry.FullName).Order(StringComparer.Ordinal),
    ];

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
            string copy = Path.Combine(folder, "copies", "store");
            if (!File.Exists(path) && !File.Exists(copy))
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

            return new FileStore(folder, StoreBlock.Read(StoreFiles.ReadBlock(path), StoreFiles.ReadBlock(copy), path));
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"the store in {folder} cannot be opened: {failure.Message}", failure);
        }
    }

    public uint Find(string name) => _names.Find(name);

    /// <summary>The path of a VDI's file.</summary>
    public string PathOf(uint vdi) => Path.Combine(_files, FileNameOf(vdi));

    private string CopyOf(uint vdi) => Path.Combine(_copies, FileNameOf(vdi));

    public IVdiContainer OpenOwn(string name, string cache, ImageOpening opening)
    {
        uint vdi = Find(name);
        try
        {
            FileContainer container = FileContainer.Open(
                PathOf(vdi), CopyOf(vdi), cache, isLocked: true, opening with { SharingGroup = null });
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
            PathOf(vdi), CopyOf(vdi), "none", isLocked: false,
            new ImageOpening("a reader of a VDI", NextDiskId(), true, false, null, warn));
        try
        {
            return (container, EssentialBlocks.Read(container).CheckPlace(Id, vdi, container.Path));
        }
        catch
        {
            ((IVdiContainer)container).Dispose();
            throw;
        }
    }

    public IVdiContainer OpenUnnamed(uint vdi, Action<string> warn) => FileContainer.Open(
        PathOf(vdi), CopyOf(vdi), "writeback", isLocked: true,
        new ImageOpening("a collector", NextDiskId(), false, false, null, warn));

    // A process notes itself there when it has opened a VDI for writing; the heads are there too.
    public string ReadState(uint vdi)
    {
        byte[] blocks = new byte[VdiFormat.OffsetOf(VdiFormat.HolderBlock + 1)];
        StoreFiles.Read(PathOf(vdi), 0, blocks);
        return Convert.ToHexString(SHA256.HashData(blocks));
    }

    public IVdiContainer? TryOpenToCollect(uint vdi, string state, Action<string> warn)
    {
        IVdiContainer container;
        try
        {
            container = OpenUnnamed(vdi, warn);
        }
        catch (ImageInUseException)
        {
            return null;
        }

        IVdiContainer? same = null;
        try
        {
            if (ReadState(vdi) == state) same = container;
        }
        finally
        {
            if (same is null) container.Dispose();
        }

        return same;
    }

    public IDisposable Pin(uint vdi, ulong snapshot, Action<string> warn) => FileStoreLocks.Pin(PathOf(vdi), snapshot);

    public IDisposable? TryForbidPins(uint vdi, ulong snapshot) =>
        FileStoreLocks.TryForbidPins(PathOf(vdi), snapshot);

    public bool IsWritten(uint vdi)
    {
        using FileDescriptor file = FileDescriptor.Open(PathOf(vdi), OpenFlags.O_RDONLY);
        return RawImageOpener.IsWritten(file);
    }

    public WriterRecord? ReadHolder(uint vdi)
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        StoreFiles.Read(PathOf(vdi), VdiFormat.OffsetOf(VdiFormat.HolderBlock), block);
        return WriterRecord.TryRead(block);
    }

    public IStoreLock LockStructure() => FileStoreLocks.LockStructure(Folder);

    public IStoreLock LockCollection(TimeSpan patience, CancellationToken cancellation) =>
        FileStoreLocks.LockCollection(Folder, patience, cancellation);

    public void Create(string name, Func<uint, VdiVersion> content, string origin, bool isUnfinished)
    {
        if (_names.Has(VdiName.Check(name)))
            throw new TargetException($"there is a VDI {name} already in {Folder}", "choose another name");
        // A number is used once, even if its file was lost.
        uint vdi = NumbersIn(_files).Concat(NumbersIn(_copies)).Concat(_names.Targets).Append(0u).Max() + 1;
        if (vdi > BlockAddress.MaxVdi)
            throw new TargetException(
                $"the store in {Folder} has no number for another VDI",
                "'ublkback vdi gc' frees those of deleted VDIs");
        VdiSuperblock superblock = new(Id, vdi, Guid.NewGuid(), DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(), name);
        byte[] blocks = VdiMetadata.Make(superblock, content(vdi), origin, isUnfinished);
        try
        {
            StoreFiles.Write(PathOf(vdi), blocks, VdiFormat.SegmentSize, FileMode.CreateNew);
            StoreFiles.Sync(_files);
            StoreFiles.Write(CopyOf(vdi), VdiMetadata.MakeCopy(superblock, blocks), 0, FileMode.Create);
            StoreFiles.Sync(_copies);
            _names.Add(name, vdi);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            _names.TryRemove(name);
            File.Delete(PathOf(vdi));
            File.Delete(CopyOf(vdi));
            throw new TargetException($"VDI {name} cannot be created: {failure.Message}", failure);
        }
    }

    public void Unlink(string name) => _names.Remove(VdiName.Check(name));

    public void Remove(uint vdi)
    {
        if (Directory.Exists(_copies)) File.Delete(CopyOf(vdi)); // first: without the file nobody would find it
        File.Delete(PathOf(vdi));
        StoreFiles.Sync(_files);
    }

    public void CheckCopies(Action<string> onFault, bool repairs)
    {
        foreach (string path in new[] { Path.Combine(Folder, "store"), Path.Combine(_copies, "store") })
        {
            if (StoreBlock.TryRead(StoreFiles.ReadBlock(path)) == Id) continue;
            onFault($"{path} is damaged or missing: {(repairs ? "repaired from its copy" : "its copy is intact")}");
            if (repairs) StoreFiles.Write(path, StoreBlock.Make(Id), 0, FileMode.OpenOrCreate);
        }

        _names.Check(onFault, repairs);
    }

    public bool Exists(uint vdi) => File.Exists(PathOf(vdi));

    public long MeasureUsage(uint vdi) => DiskUsage.Of(PathOf(vdi));

    public IDisposable Listen(uint vdi, MessageDispatcher requests) => new FileStoreSocket(SocketFolder, vdi, requests);

    public Task<VdiDelivery> TryAskAsync(uint vdi, byte[] request) =>
        FileStoreSocket.TryAskAsync(SocketFolder, vdi, request);

    public void Dispose()
    {
        // It has nothing open by itself.
    }

    private string SocketFolder => Path.Combine(Folder, "doors");

    // 0 when it is no file of a VDI.
    private static uint NumberOf(FileSystemInfo entry) =>
        uint.TryParse(entry.Name, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint vdi)
            && vdi is > 0 and <= BlockAddress.MaxVdi && entry.Name == FileNameOf(vdi) ? vdi : 0;

    private static string FileNameOf(uint vdi) => string.Create(CultureInfo.InvariantCulture, $"{vdi:x6}");

    private static long NextDiskId() =>
        FirstDiskId | ((long)Environment.ProcessId << 32) | (uint)Interlocked.Increment(ref _lastDisk);

    private static void Make(string folder, string path)
    {
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(folder, Private);
        foreach (string part in new[] { "names", "vdi", "doors", "copies", "copies/names" })
            Directory.CreateDirectory(Path.Combine(folder, part), Private);
        byte[] block = StoreBlock.Make(Guid.NewGuid());
        StoreFiles.Write(Path.Combine(folder, "copies", "store"), block, 0, FileMode.Create);
        StoreFiles.Write(path + ".new", block, 0, FileMode.Create);
        File.Move(path + ".new", path); // last, so that what is there is complete
        StoreFiles.Sync(folder);
    }

    // What the superblock of a VDI, or its copy, says; null if neither can be read.
    private string? ReadName(uint vdi) =>
        (VdiSuperblock.TryRead(StoreFiles.ReadBlock(PathOf(vdi)))
            ?? VdiSuperblock.TryRead(StoreFiles.ReadBlock(CopyOf(vdi))))?.Name;

    private static IEnumerable<uint> NumbersIn(string folder) => Directory.Exists(folder)
        ? new DirectoryInfo(folder).EnumerateFileSystemInfos().Select(NumberOf).Where(vdi => vdi != 0).Order()
        : [];
}
