using System.Diagnostics;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Formats;

/// <summary>Guests whose disks are on NBD servers, ours and others; and our server with clients of others.</summary>
public sealed class NbdTests : HostFixture
{
    private readonly List<Process> _servers = [];

    private string SocketPath => Path.Combine(Scratch, "nbd.sock");

    [TearDown]
    public async Task StopServers()
    {
        foreach (Process server in _servers)
        {
            server.Kill();
            await server.WaitForExitAsync();
            server.Dispose();
        }
    }

    [Test]
    public async Task A_guest_on_NBD_notices_neither_deaths_of_the_daemon_nor_of_the_server()
    {
        string image = MakeImage("a.img");
        Process server = await ExportAsync(image);
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk)
        {
            VerifyingWrites writes = new(disk);
            for (int death = 0; death < 6; death++)
            {
                Task running = writes.RunAsync(50);
                if (death % 2 == 0)
                {
                    await KillAsync();
                    Daemon = StartDaemon();
                }
                else
                {
                    await KillAsync(server);
                    server = await ExportAsync(image);
                }

                await running.WaitAsync(Soon);
            }
        }

        Assert.That(await File.ReadAllTextAsync(DaemonLog), Does.Contain("connected again"));
    }

    [Test]
    public async Task A_guest_writes_over_a_disk_on_the_network_which_is_not_changed()
    {
        byte[] below = new byte[8 << 20];
        new Random(1).NextBytes(below);
        string golden = Path.Combine(Scratch, "golden.img"), overlay = Path.Combine(Scratch, "over.qcow2");
        await File.WriteAllBytesAsync(golden, below);
        await StartServerAsync("nbdkit", "-f", "-r", "-U", SocketPath, "--filter=multi-conn", "file", golden);
        (int status, _, string errors) =
            await RunAsync("image", "create", $"qcow2:{overlay}", "--backing", $"nbd:unix:{SocketPath}");
        Assert.That(status, Is.Zero, errors);
        (_, Blkfront disk) = await ConnectAsync($"qcow2:{overlay}?backing=allow");
        await using (disk)
        {
            Assert.That(
                await disk.WriteAsync(8, Enumerable.Repeat((byte)7, 4096).ToArray()), Is.EqualTo(BlkifStatus.Okay));
            await KillAsync();
            Daemon = StartDaemon();
            byte[] read = new byte[16 << 10];
            Assert.That(await disk.ReadAsync(0, read).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            byte[] expected = below[..read.Length];
            expected.AsSpan(4096, 4096).Fill(7);
            Assert.That(read, Is.EqualTo(expected));
        }

        Assert.That(await File.ReadAllBytesAsync(golden), Is.EqualTo(below));
    }

    [Test]
    public async Task Errors_of_a_server_are_told_for_the_requests_concerned()
    {
        string image = MakeImage("a.img");
        await StartServerAsync(
            "nbdkit", "-f", "-U", SocketPath, "--filter=error", "file", image, "error-pread=EIO",
            "error-pread-rate=50%", "error-pwrite=ENOSPC", "error-pwrite-rate=50%");
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk)
        {
            HashSet<BlkifStatus> seen = [];
            byte[] data = new byte[4096];
            for (int i = 0; i < 40; i++)
            {
                seen.Add(
                    await disk.WriteAsync((ulong)i * 8, Enumerable.Repeat((byte)i, 4096).ToArray()).WaitAsync(Soon));
                BlkifStatus status = await disk.ReadAsync((ulong)i * 8, data).WaitAsync(Soon);
                seen.Add(status);
            }

            Assert.That(seen, Is.EquivalentTo(new[] { BlkifStatus.Okay, BlkifStatus.Error }));
        }

        Assert.That(
            await File.ReadAllTextAsync(DaemonLog),
            Does.Contain("failed on the server: input/output error").And.Contain("no space left on device"));
    }

    // Servers that are slow, that are strict about sizes, that lack this or that.
    [TestCase("--filter=delay", "delay-read=20ms", "delay-write=20ms")]
    [TestCase(
        "--filter=blocksize-policy", "blocksize-minimum=512", "blocksize-maximum=16K", "blocksize-error-policy=error")]
    [TestCase("--filter=noextents", "--filter=nozero")]
    [TestCase("--filter=fua", "fuamode=emulate")]
    public async Task Servers_of_all_kinds_are_served_from(params string[] filters)
    {
        string image = MakeImage("a.img");
        await StartServerAsync(
            "nbdkit",
            ["-f", "-U", SocketPath, .. filters.Where(word => word.StartsWith('-')), "file", image,
                .. filters.Where(word => !word.StartsWith('-'))]);
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk) await new VerifyingWrites(disk).RunAsync(100).WaitAsync(Soon);
    }

    [Test]
    public async Task A_server_that_dies_again_and_again_loses_nothing()
    {
        string image = MakeImage("a.img");
        string[] command = [
            "-f", "-U", SocketPath, "--filter=delay", "file", image, "delay-read=2ms", "delay-write=2ms"];
        Process server = await StartServerAsync("nbdkit", command);
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk)
        {
            VerifyingWrites writes = new(disk);
            for (int death = 0; death < 5; death++)
            {
                Task running = writes.RunAsync(50);
                await KillAsync(server);
                server = await StartServerAsync("nbdkit", command);
                await running.WaitAsync(Soon);
            }
        }
    }

    [TestCase("--filter=exitlast")]
    [TestCase("--filter=exitwhen", "exit-when-file-created=")]
    public async Task A_server_that_leaves_when_its_last_client_does_is_waited_for(params string[] words)
    {
        string image = MakeImage("a.img"), leave = Path.Combine(Scratch, "leave");
        words = [.. words.Select(word => word.EndsWith('=') ? word + leave : word)];
        string[] command = ["-f", "-U", SocketPath, words[0], "file", image, .. words[1..]];
        Process server = await StartServerAsync("nbdkit", command);
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk)
        {
            VerifyingWrites writes = new(disk);
            await writes.RunAsync(50).WaitAsync(Soon);
            await File.WriteAllTextAsync(leave, "");
            Task running = writes.RunAsync(50);
            await KillAsync();
            await server.WaitForExitAsync().WaitAsync(Soon);
            File.Delete(leave);
            Daemon = StartDaemon();
            await StartServerAsync("nbdkit", command);
            await running.WaitAsync(Soon);
        }
    }

    // It answers what is under way by ESHUTDOWN, and ends when it has no connections.
    [Test]
    public async Task A_server_that_is_told_to_end_loses_all_connections()
    {
        string image = MakeImage("a.img"), log = Path.Combine(Scratch, "nbdkit.log");
        Process server = await StartServerAsync(
            "nbdkit", "-f", "-U", SocketPath, "--filter=log", "--filter=delay", "file", image, $"logfile={log}",
            "delay-write=3");
        (_, Blkfront disk) = await ConnectAsync(
            $"nbd:unix:{SocketPath}", new BlkfrontOptions(BlkifAbi.X86_64, 1, Queues: 2));
        await using (disk)
        {
            byte[] data = [.. Enumerable.Repeat((byte)7, 4096)], read = new byte[4096];
            // Each worker has a connection.
            await Task.WhenAll(Enumerable.Range(0, 32).Select(_ => disk.ReadAsync(0, new byte[4096]))).WaitAsync(Soon);
            Assert.That(File.ReadLines(log).Count(line => line.Contains(" Connect ")), Is.GreaterThan(1));
            Task<BlkifStatus> write = disk.WriteAsync(0, data);
            for (int i = 0; !File.ReadLines(log).Any(line => line.Contains(" Write ")); i++)
            {
                Assert.That(i, Is.LessThan(1000));
                await Task.Delay(5); // a look at what another program says in a file
            }

            Assert.That(Syscall.kill(server.Id, Signum.SIGTERM), Is.Zero);
            await server.WaitForExitAsync().WaitAsync(Soon);
            await StartServerAsync("nbdkit", "-f", "-U", SocketPath, "file", image);
            Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(0, read).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
        }
    }

    [Test]
    public async Task A_disk_of_large_blocks_is_one_for_the_guest()
    {
        await StartServerAsync(
            "nbdkit", "-f", "-U", SocketPath, "--filter=blocksize-policy", "memory", "8M", "blocksize-minimum=4096",
            "blocksize-error-policy=error");
        (_, Blkfront disk) = await ConnectAsync($"nbd:unix:{SocketPath}");
        await using (disk)
        {
            Assert.That(disk.SectorSize, Is.EqualTo(4096));
            byte[] data = Enumerable.Repeat((byte)5, 8192).ToArray(), read = new byte[8192];
            Assert.That(await disk.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
        }
    }

    [Test]
    public async Task Tools_of_others_use_what_is_exported()
    {
        byte[] content = new byte[8 << 20];
        new Random(2).NextBytes(content.AsSpan(1 << 20, 2 << 20));
        string raw = Path.Combine(
            Scratch, "a.img"), packed = Path.Combine(Scratch, "a.qcow2"), copy = Path.Combine(Scratch, "copy.img");
        await File.WriteAllBytesAsync(raw, content);
        Assert.That((await RunAsync("image", "convert", raw, $"qcow2:{packed}")).Status, Is.Zero);
        await ExportAsync($"qcow2:{packed}", "--name", "disk one");
        string uri = $"nbd+unix:///disk%20one?socket={SocketPath}";

        Assert.That(
            await RunOtherAsync("nbdinfo", uri),
            Does.StartWith("0:").And.Contain("export-size: 8388608").And.Contain("can_multi_conn: true").And.Contain(
                "base:allocation"));
        Assert.That(
            await RunOtherAsync("nbdinfo", "--list", $"nbd+unix:///?socket={SocketPath}"),
            Does.Contain("export=\"disk one\""));
        Assert.That(
            await RunOtherAsync("nbdinfo", "--map", uri),
            Does.Match(@"(?s) 0 +1048576 +3 .* 1048576 +2097152 +0 .* 3145728 +5242880 +3 "));
        Assert.That(await RunOtherAsync("nbdcopy", uri, copy), Does.StartWith("0:"));
        Assert.That(await File.ReadAllBytesAsync(copy), Is.EqualTo(content));

        new Random(3).NextBytes(content.AsSpan(0, 3 << 20));
        content.AsSpan(4 << 20).Clear();
        await File.WriteAllBytesAsync(copy, content);
        Assert.That(
            await RunOtherAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", copy, uri),
            Does.StartWith("0:"));
        Assert.That(
            await RunOtherAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", copy, uri), Does.StartWith("0:"));
        Assert.That(await RunOtherAsync(
            "qemu-io", "-f", "raw", "-c", "discard 0 1M", "-c", "read -P 0 0 1M", "-c", "write -f -P 9 0 64k", "-c",
            "flush", uri), Does.StartWith("0:").And.Not.Contain("failed"));
        await SignalAsync(_servers[0], "TERM");
        await _servers[0].WaitForExitAsync().WaitAsync(Soon);
        Assert.That(File.Exists(SocketPath), Is.False);
        Assert.That(await RunOtherAsync("qemu-img", "check", packed), Does.StartWith("0:"));
        Assert.That(
            await RunOtherAsync("qemu-io", "-r", "-c", "read -P 9 0 64k", "-c", "read -P 0 64k 960k", packed),
            Does.StartWith("0:").And.Not.Contain("verification failed"));
    }

    [Test]
    public async Task Mistakes_of_who_exports_are_told()
    {
        string image = MakeImage("a.img");
        (string[] Arguments, string Message)[] mistakes =
        [
            ([image], "Give --unix PATH or --tcp ADDRESS:PORT"),
            ([image, "--tcp", "0.0.0.0:10809"], "lets others read and write the disk: add --tls-certs"),
            ([image, "--tcp", "nonsense"], "is no address"),
            ([image, "--unix", image], "is there already and no socket"),
            ([image, "--unix", "/" + new string('x', 200)], "longer than a socket's name can be"),
            ([image, "--unix", SocketPath, "--shared", "0"], "lets nobody in"),
            ([image, "--unix", SocketPath, "--tls-verify-peer"], "needs --tls-certs"),
            ([image, "--tcp", "127.0.0.1:0", "--tls-certs", Scratch], $"the certificates in {Scratch} cannot be used"),
            (["/nowhere.img", "--unix", SocketPath], "/nowhere.img"),
        ];
        foreach ((string[] arguments, string message) in mistakes)
        {
            (int status, _, string errors) = await RunAsync(["export", .. arguments]);
            Assert.That((status, errors.Trim().Split('\n').Length), Is.EqualTo((1, 1)), errors);
            Assert.That(errors, Does.Contain(message));
        }

        await ExportAsync(image);
        Assert.That(
            (await RunAsync("export", image, "--unix", SocketPath)).Errors, Does.Contain("another server listens at"));
        Assert.That(
            (await RunAsync("export", image, "--unix", SocketPath + "2")).Errors,
            Does.Contain("is in use by another program"));
    }

    private Task<Process> ExportAsync(string target, params string[] arguments) =>
        StartServerAsync(Program, ["export", target, "--unix", SocketPath, .. arguments]);

    // Waits until it listens.
    private async Task<Process> StartServerAsync(string program, params string[] arguments)
    {
        if (program != Program) File.Delete(SocketPath);
        Process server = Process.Start(new ProcessStartInfo(
            program, arguments)
        { RedirectStandardOutput = true, Environment = { ["UBLKBACK_HOST"] = Layout.Root } })!;
        _servers.Add(server);
        if (program == Program)
            Assert.That(await server.StandardOutput.ReadLineAsync().WaitAsync(Soon), Does.StartWith("ready: "));
        else await AwaitFileAsync(SocketPath);
        return server;
    }

    private static async Task KillAsync(Process server)
    {
        server.Kill();
        await server.WaitForExitAsync().WaitAsync(Soon);
    }

    private static async Task AwaitFileAsync(string path)
    {
        using CancellationTokenSource limit = new(Soon);
        using FileSystemWatcher watcher = new(Path.GetDirectoryName(path)!, Path.GetFileName(path));
        using SemaphoreSlim made = new(0);
        watcher.Created += (_, _) => made.Release();
        watcher.EnableRaisingEvents = true;
        if (!File.Exists(path)) await made.WaitAsync(limit.Token);
    }
}
