using System.Diagnostics;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// QEMU's storage daemon with one file on a file system in user space, below which it does what it is told.
/// </summary>
internal sealed class StorageDaemon : IAsyncDisposable
{
    private readonly Process _process;

    private StorageDaemon(Process process, string path)
    {
        _process = process;
        Path = path;
    }

    /// <summary>The process.</summary>
    public Process Process => _process;

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Starts it: the file is the last of some nodes, which is called <c>top</c>.</summary>
    public static async Task<StorageDaemon> StartAsync(string folder, TimeSpan patience, params string[] nodes)
    {
        string path = System.IO.Path.Combine(
            folder, "export.img"), numberPath = System.IO.Path.Combine(folder, "exporter.pid");
        await File.WriteAllBytesAsync(path, []);
        // The file with its number appears when all exports are there.
        using FileSystemWatcher watcher = new(folder, "exporter.pid");
        TaskCompletionSource ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
        watcher.Created += (_, _) => ready.TrySetResult();
        watcher.EnableRaisingEvents = true;
        Process process = Process.Start("qemu-storage-daemon",
        [
            .. nodes.SelectMany(node => new[] { "--blockdev", node }),
            "--export", $"type=fuse,id=fuse,node-name=top,mountpoint={path},writable=on",
            "--pidfile", numberPath,
        ]);
        await ready.Task.WaitAsync(patience);
        return new StorageDaemon(process, path);
    }

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
        using Process unmount =
            Process.Start(new ProcessStartInfo("umount", ["-l", Path]) { RedirectStandardError = true })!;
        await unmount.WaitForExitAsync();
    }
}
