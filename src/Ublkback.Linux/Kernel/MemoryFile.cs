using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>A file that lives in memory and has no name (memfd_create).</summary>
public sealed partial class MemoryFile : IDisposable
{
    private const uint CloseOnExec = 1; // MFD_CLOEXEC, memfd.h
    private const uint AllowSealing = 2; // MFD_ALLOW_SEALING
    private const int AddSeals = 1033; // F_ADD_SEALS, fcntl.h
    private const int SealSeal = 1;
    private const int SealShrink = 2;
    private const int SealGrow = 4;

    private MemoryFile(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The open file.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Makes an empty file. The name is for people who look at /proc.</summary>
    public static MemoryFile Create(string name) =>
        new(new FileDescriptor(LinuxException.Check(memfd_create(name, CloseOnExec | AllowSealing), "memfd_create")));

    /// <summary>Makes a file whose size nobody can change: mapping it can never end in SIGBUS.</summary>
    public static MemoryFile CreateSealed(string name, long length)
    {
        MemoryFile file = Create(name);
        LinuxException.Check(ftruncate(file.Descriptor.Number, length), "ftruncate");
        LinuxException.Check(fcntl(file.Descriptor.Number, AddSeals, SealShrink | SealGrow | SealSeal), "F_ADD_SEALS");
        return file;
    }

    /// <inheritdoc/>
    public void Dispose() => Descriptor.Dispose();

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int memfd_create(string name, uint flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int ftruncate(int descriptor, long length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fcntl(int descriptor, int command, int argument);
}
