using Ublkback.Linux.Kernel;

namespace Ublkback.Parallax.Stores;

/// <summary>A lock of a store in a folder: the kernel's, which only its holder gives back.</summary>
internal sealed class FileStoreLock(FileDescriptor file) : IStoreLock
{
    public void Check()
    {
        // It cannot be lost.
    }

    public void Dispose() => file.Dispose();
}
