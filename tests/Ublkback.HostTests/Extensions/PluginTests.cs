using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Extensions;

/// <summary>Plugins, good and broken, as a guest and an administrator meet them.</summary>
public sealed class PluginTests : HostFixture
{
    private const string Broken = "Ublkback.BrokenPlugin.dll";

    private string Folder => Layout.PluginFolder;

    [TestCase("throws", "hook throws failed: InvalidOperationException: on purpose")]
    [TestCase("loses(timeout=100ms)", "hook loses has not answered a Write of 8 sectors at 8 for 0.1 s")]
    [TestCase("hasty", "hook hasty answered a request that it passed on before that came back")]
    [TestCase("twice", "hook twice passed on a request that is below it already")]
    [TestCase("nonsense", "hook nonsense answered 77, which is no status")]
    [TestCase("outside", "hook outside passed on a bad request")]
    public async Task A_broken_plugin_fails_its_own_request_and_is_named(string hook, string part)
    {
        await RestartWithAsync(Broken);
        byte[] data = [.. Enumerable.Repeat((byte)7, 4096)], read = new byte[4096];
        (_, Blkfront disk) = await ConnectAsync($"{hook}+{MakeImage("a.img")}");
        await using Blkfront neighbour = await ConnectNeighbourAsync();
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(8, data).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.WriteAsync(16, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(16, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
            await AwaitLogAsync(part);
            Assert.That(await neighbour.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
            await disk.CloseAsync(Soon);
        }

        Assert.That(Daemon.HasExited, Is.False);
    }

    [TestCase("elsewhere", null)]
    [TestCase("posts", "hook posts failed: InvalidOperationException: posted on purpose")]
    [TestCase(
        "strays", "code of a plugin failed on a thread of its own: InvalidOperationException: on a thread of its own")]
    public async Task What_a_plugin_does_beside_its_requests_takes_nothing_down(string hook, string? part)
    {
        await RestartWithAsync(Broken);
        byte[] data = [.. Enumerable.Repeat((byte)7, 4096)], read = new byte[4096];
        (_, Blkfront disk) = await ConnectAsync($"{hook}+{MakeImage("a.img")}");
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(8, data).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            if (part is not null) await AwaitLogAsync(part);
            Assert.That(await disk.ReadAsync(8, read).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task A_plugin_that_blocks_blocks_nobody_else_and_is_named()
    {
        await RestartWithAsync(Broken);
        byte[] data = new byte[4096];
        DiskConfiguration configuration = Disk($"blocks+{MakeImage("a.img")}");
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, configuration);
        await using Blkfront disk = await ConnectAsync(guest);
        await using Blkfront neighbour = await ConnectNeighbourAsync();
        _ = disk.WriteAsync(8, data);
        await AwaitLogAsync("hook blocks has blocked the disk for");
        Assert.That(await neighbour.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));

        await Toolstack.DetachAsync(1, configuration, force: true).WaitAsync(ForcedDetach);
        KeepsDisks = true;
        await AwaitLogAsync("its worker is blocked, so the guest's rings stay mapped");
        Assert.That(await neighbour.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
    }

    [Test]
    public async Task A_successor_goes_on_with_a_disk_of_a_plugin()
    {
        await RestartWithAsync(Broken);
        (_, Blkfront disk) = await ConnectAsync($"elsewhere+{MakeImage("a.img", VerifyingLoad.DiskSize)}");
        await using (disk)
        {
            await KillDaemonsUnderAsync(disk);

            await disk.CloseAsync(Soon);
        }
    }

    [TestCase("cannot+{0}", "hook cannot: it failed: InvalidOperationException: no hook today")]
    [TestCase("lying:x", "image lying: has 2047 sectors of 512 bytes in units of 4096 bytes, which cannot be")]
    [TestCase("throws(timeout=soon)+{0}", "timeout=soon is not a duration")]
    public async Task A_plugin_that_cannot_open_refuses_the_disk(string target, string part)
    {
        await RestartWithAsync(Broken);
        await MakeGuestAsync(1);
        Assert.That(
            () => Toolstack.AttachAsync(1, Disk(target.Replace("{0}", MakeImage("a.img"), StringComparison.Ordinal))),
            Throws.TypeOf<ToolstackException>().With.Message.Contains(part));
    }

    [Test]
    public async Task What_is_no_plugin_is_refused_and_told_where_the_user_looks()
    {
        Directory.CreateDirectory(Folder);
        CopyPlugin(Broken, "open.dll");
        File.SetUnixFileMode(Path.Combine(Folder, "open.dll"), (UnixFileMode)0b110_110_110);
        CopyPlugin(Broken, "a.dll");
        CopyPlugin(Broken, "b.dll"); // the same hooks once more
        File.Copy(
            Path.Combine(Path.GetDirectoryName(Program)!, "Ublkback.Images.dll"), Path.Combine(Folder, "images.dll"));
        File.Copy(
            Path.Combine(Path.GetDirectoryName(Program)!, "Spectre.Console.dll"),
            Path.Combine(Folder, "dependency.dll"));
        await File.WriteAllTextAsync(Path.Combine(Folder, "text.dll"), "no assembly");
        await RestartWithAsync();
        await MakeGuestAsync(1);

        ToolstackException refusal = Assert.ThrowsAsync<ToolstackException>(
            () => Toolstack.AttachAsync(1, Disk($"colour+{MakeImage("a.img")}")))!;
        Assert.That(refusal.Message, Does.Contain("unknown hook colour"));
        Assert.That(
            refusal.Message,
            Does.Contain("the plugin open.dll was refused: others than its owner may write it: chmod go-w"));
        (int status, string output, _) = await RunAsync("doctor", "--host", Layout.Root);
        Assert.That(status, Is.EqualTo(1));
        Assert.That(output, Does.Contain("the plugin a.dll (blocks, cannot, "));
        Assert.That(output, Does.Contain("the plugin b.dll").And.Contain("a hook blocks is known already"));
        Assert.That(
            output,
            Does.Contain("the plugin images.dll").And.Contain(
                "it has 0 public classes of IBlockPlugin, and needs one"));
        Assert.That(output, Does.Contain("the plugin text.dll").And.Contain("BadImageFormat"));
        Assert.That(output, Does.Not.Contain("dependency.dll"));
    }

    [Test]
    public async Task The_sample_plugin_is_built_outside_the_tree_from_the_package_and_serves_a_guest()
    {
        string sample = Path.Combine(Scratch, "sample"), packages = Path.Combine(Scratch, "packages");
        Directory.CreateDirectory(sample);
        foreach (string file in Directory.EnumerateFiles(Path.Combine(FindRoot(), "samples/plugin")))
            File.Copy(file, Path.Combine(sample, Path.GetFileName(file)));
        await DotnetAsync(
            "pack", Path.Combine(FindRoot(), "src/Ublkback.Block"), "--configuration", "Release", "--no-restore",
            "--output", packages);
        await DotnetAsync(
            "build", sample, "--configuration", "Release", "--source", packages,
            $"-p:RestorePackagesPath={Scratch}/cache");
        Directory.CreateDirectory(Folder);
        File.Copy(Path.Combine(sample, "bin/Release/net10.0/Sample.dll"), Path.Combine(Folder, "Sample.dll"));
        await RestartWithAsync();

        string image = MakeImage("a.img");
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync($"rot13+{image}");
        await Toolstack.AttachAsync(1, Disk("stripes:2048", isWritable: false, deviceId: Xvda + 16));
        await using Blkfront stripes = await ConnectAsync(guest, Xvda + 16);
        await using (disk)
        {
            byte[] data = [.. Enumerable.Repeat((byte)'B', 4096)], read = new byte[4096];
            Assert.That(await disk.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
            Assert.That((await File.ReadAllBytesAsync(image))[4096], Is.EqualTo((byte)'O'));
            Assert.That(await stripes.ReadAsync(40, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That((read[0], read[512], read[4095]), Is.EqualTo(((byte)40, (byte)41, (byte)47)));
            await disk.CloseAsync(Soon);
        }
    }

    private async Task<Blkfront> ConnectNeighbourAsync()
    {
        EmulatedGuest guest = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(2, Disk(MakeImage("neighbour.img")));
        return await ConnectAsync(guest);
    }

    private async Task RestartWithAsync(params string[] plugins)
    {
        Directory.CreateDirectory(Folder);
        foreach (string plugin in plugins) CopyPlugin(plugin, plugin);
        await StopDaemonAsync();
        Daemon = await StartDaemonAsync();
    }

    private void CopyPlugin(string plugin, string name)
    {
        string path = Path.Combine(Folder, name),
            build = AppContext.BaseDirectory.Contains("/Release/", StringComparison.Ordinal) ? "Release" : "Debug";
        File.Copy(Path.Combine(FindRoot(), "tests/Ublkback.BrokenPlugin/bin", build, "net10.0", plugin), path);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    private static async Task DotnetAsync(params string[] arguments)
    {
        ProcessStartInfo start = new("dotnet", arguments) { RedirectStandardOutput = true };
        using Process dotnet = Process.Start(start)!;
        string output = await dotnet.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromMinutes(3));
        await dotnet.WaitForExitAsync();
        Assert.That(dotnet.ExitCode, Is.Zero, output);
    }
}
