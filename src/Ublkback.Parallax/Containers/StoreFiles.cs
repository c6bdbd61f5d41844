using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>Reads and writes small files of a store in a folder. Any thread; blocks it.</summary>
internal static class StoreFiles
{
    private const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Writes a file that only its owner can use, and makes it durable. Makes its folder.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="content">Its content.</param>
    /// <param name="length">Its length, if that is more; the rest is a hole.</param>
    /// <param name="mode">Whether it may be there.</param>
    public static void Write(string path, ReadOnlySpan<byte> content, long length, FileMode mode)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!, Private | UnixFileMode.UserExecute);
        using SafeFileHandle file = File.OpenHandle(path, mode, FileAccess.Write, FileShare.ReadWrite);
        File.SetUnixFileMode(path, Private);
        RandomAccess.Write(file, content, 0);
        if (length > content.Length) RandomAccess.SetLength(file, length);
        RandomAccess.FlushToDisk(file);
    }

    /// <summary>Reads the first block of a file. What is not there is zeros.</summary>
    public static byte[] ReadBlock(string path)
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        try
        {
            Read(path, 0, block);
        }
        catch (Exception failure) when (failure is FileNotFoundException or DirectoryNotFoundException)
        {
            // It may have been deleted just now.
        }

        return block;
    }

    /// <summary>Makes the entries of a folder durable.</summary>
    public static void Sync(string folder)
    {
        using FileDescriptor directory = FileDescriptor.Open(folder, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);
        if (Syscall.fsync(directory.Number) != 0) throw new IOException($"{folder} could not be made durable");
    }

    /// <summary>Reads from a file that another process may be writing, as much as it has.</summary>
    public static void Read(string path, long offset, Span<byte> target)
    {
        using SafeFileHandle file = File.OpenHandle(
            path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        _ = RandomAccess.Read(file, target, offset);
    }
}
