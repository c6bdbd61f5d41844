using Mono.Unix.Native;
using Ublkback.Hosting;
using Ublkback.Linux.Kernel;

namespace Ublkback.Service;

/// <summary>The lock that only one daemon of a host can hold.</summary>
internal static class DaemonLock
{
    /// <summary>True if a daemon runs, or starts, or ends.</summary>
    /// <exception cref="IOException">The lock's file cannot be opened.</exception>
    public static bool IsHeld(string runDirectory)
    {
        string path = PathIn(runDirectory);
        if (!File.Exists(path)) return false;
        using FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR);
        return OfdLock.IsHeldByAnother(file, 0);
    }

    /// <summary>Creates the directory if necessary, and locks it until the descriptor is closed.</summary>
    /// <exception cref="CommandException">Another daemon holds the lock, or the directory cannot be used.</exception>
    public static FileDescriptor Take(string runDirectory)
    {
        const UnixFileMode OnlyTheUser = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        string path = PathIn(runDirectory);
        try
        {
            Directory.CreateDirectory(runDirectory, OnlyTheUser);
            FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR | OpenFlags.O_CREAT);
            if (OfdLock.TryExclude(file, 0)) return file;
            file.Dispose();
            throw new CommandException($"another daemon runs already (it holds {path})");
        }
        catch (Exception failure) when (failure is UnauthorizedAccessException or IOException)
        {
            throw new CommandException(
                $"the daemon cannot use {runDirectory} ({failure.Message})", "run it as root", failure);
        }
    }

    private static string PathIn(string runDirectory) => Path.Combine(runDirectory, "daemon.lock");
}
