using System.Globalization;
using Mono.Unix.Native;
using Ublkback.Linux.Kernel;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// A file of this host that is locked as long as a holder lives: the kernel lets go of the lock when the holder's
/// process ends, however it ends, and in whatever container or namespace it was. Any thread.
/// </summary>
/// <remarks>
/// Only who finds that very file, and finds it unlocked, knows that the holder is dead. A process that cannot see the
/// file (of another container, another host, or after a reboot) knows nothing.
/// </remarks>
internal sealed class HolderProof : IDisposable
{
    private const string Folder = "/run/ublkback/holders"; // emptied by a reboot

    private static readonly string Boot = File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    private readonly string _path;
    private readonly FileDescriptor? _file;

    private HolderProof(string id)
    {
        _path = PathOf(id);
        _file = TryMake(_path);
        Cookie = $"{Boot}/{(_file is null ? "" : Identify(_file))}/{id}";
    }

    /// <summary>A cookie for a lock, that tells which file says that its holder lives.</summary>
    public string Cookie { get; }

    /// <summary>Makes one. Without a folder for it there is no file, and no proof.</summary>
    public static HolderProof Make() => new(Guid.NewGuid().ToString("n"));

    /// <summary>What is unique of a cookie.</summary>
    public static string IdOf(string cookie) => cookie[(cookie.LastIndexOf('/') + 1)..];

    /// <summary>Whether it is known that the holder of a cookie is dead.</summary>
    public static bool IsDead(string cookie)
    {
        if (cookie.Split('/') is not [string boot, { Length: > 0 } identity, string id] || boot != Boot
            || !Guid.TryParseExact(id, "n", out _))
            return false;
        try
        {
            using FileDescriptor file = FileDescriptor.Open(PathOf(id), OpenFlags.O_RDWR);
            return Identify(file) == identity && !OfdLock.IsHeldByAnother(file, 0);
        }
        catch (IOException)
        {
            return false;
        }
    }

    /// <summary>Removes the file of a holder that is dead.</summary>
    public static void Forget(string cookie)
    {
        if (IsDead(cookie)) File.Delete(PathOf(IdOf(cookie)));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_file is null) return;
        File.Delete(_path);
        _file.Dispose();
    }

    private static string PathOf(string id) => Path.Combine(Folder, id);

    private static FileDescriptor? TryMake(string path)
    {
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Folder)!, Private);
            Directory.CreateDirectory(Folder, Private);
            FileDescriptor file =
                FileDescriptor.Open(path, OpenFlags.O_RDWR | OpenFlags.O_CREAT | OpenFlags.O_EXCL);
            if (OfdLock.TryExclude(file, 0)) return file;
            file.Dispose();
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            // Then others have to wait until it is silent.
        }

        return null;
    }

    // A copy of the file, as a container may have, is another one.
    private static string Identify(FileDescriptor file) => Syscall.fstat(file.Number, out Stat status) == 0
        ? string.Create(CultureInfo.InvariantCulture, $"{status.st_dev:x}.{status.st_ino:x}")
        : "";
}
