using System.Diagnostics;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Tests.Linux;

namespace Ublkback.Tests.Images;

public sealed class RawImageTests
{
    private readonly List<string> _warnings = [];
    private int _lastDisk;
    private string _directory = null!;
    private Worker _worker = null!;

    [SetUp]
    public void Start()
    {
        _directory = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        _worker = new Worker("test");
        _warnings.Clear();
    }

    [TearDown]
    public void Stop()
    {
        _worker.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Test]
    public async Task A_discard_makes_a_hole_and_leaves_the_rest()
    {
        string path = Make("a.img", 1 << 20);
        File.WriteAllBytes(path, [.. Enumerable.Repeat((byte)7, 1 << 20)]);
        IBlockImage image = Open(path);
        await using (image)
        {
            Assert.That(image.Geometry.DiscardGranularity, Is.EqualTo(4096));
            Assert.That(
                await DoAsync(image, BlockOperation.Discard, 512, [], sectorCount: 1024), Is.EqualTo(BlockStatus.Okay));
        }

        byte[] content = File.ReadAllBytes(path);
        Assert.That(content.AsSpan(512 * 512, 1024 * 512).ContainsAnyExcept((byte)0), Is.False);
        Assert.That(content.AsSpan(0, 512 * 512).ContainsAnyExcept((byte)7), Is.False);
        Assert.That(content.AsSpan(1536 * 512).ContainsAnyExcept((byte)7), Is.False);
    }

    [Test]
    public async Task Discard_is_not_offered_when_it_is_off_or_the_disk_read_only()
    {
        await using (IBlockImage off = Open(Make("a.img", 4096), allowsDiscard: false))
            Assert.That(off.Geometry.DiscardGranularity, Is.Zero);
        await using IBlockImage readOnly = Open(Make("a.img", 4096), isReadOnly: true);
        Assert.That(readOnly.Geometry.DiscardGranularity, Is.Zero);
    }

    [Test]
    public async Task Opens_only_when_the_io_of_an_earlier_process_has_ended()
    {
        string path = Make("a.img", 4096);
        long mine = (1L << 62) + _lastDisk + 1;
        // A description that the kernel keeps after the death of its process, because of I/O that goes on.
        FileDescriptor dead = FileDescriptor.Open(path, OpenFlags.O_RDONLY);
        OfdLock.TryShare(dead, mine);
        Task<IBlockImage> opening = Task.Run(() => Open(path));
        Assert.That(await Task.WhenAny(opening, Task.Delay(100)), Is.Not.SameAs(opening), "its I/O goes on");
        await using (IBlockImage other = Open(path, isReadOnly: true))
            Assert.That(other, Is.Not.Null, "another disk's");

        dead.Dispose();

        await using IBlockImage image = await opening.WaitAsync(TimeSpan.FromSeconds(20));
        Assert.That(
            OfdLock.IsHeldByAnother(dead = FileDescriptor.Open(path, OpenFlags.O_RDONLY), mine), Is.True,
            "it has a lock of its own");
        dead.Dispose();
    }

    [Test]
    public async Task An_image_is_known_again_and_another_in_its_place_is_not()
    {
        string path = Make("a.img", 4096);
        string identity;
        await using (IBlockImage image = Open(path)) identity = image.Identity;
        await using (IBlockImage again = Open(path)) Assert.That(again.Identity, Is.EqualTo(identity));
        File.Move(Make("b.img", 4096), path, overwrite: true);
        await using IBlockImage other = Open(path);
        Assert.That(other.Identity, Is.Not.EqualTo(identity));
    }

    [Test]
    public async Task Notices_that_the_file_has_grown_or_shrunk()
    {
        string path = Make("a.img", 8192);
        await using IBlockImage image = Open(path);
        Assert.That(image.Remeasure(), Is.False);
        foreach (long length in new[] { 1 << 20, 4096, 5000 })
        {
            using (FileStream file = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
                file.SetLength(length);
            Assert.That(image.Remeasure(), Is.True);
            Assert.That(image.Geometry.SectorCount, Is.EqualTo((length + 511) / 512), "with the last, partial one");
        }
    }

    [Test]
    public async Task A_file_can_have_large_sectors()
    {
        await using (IBlockImage image = Open(Make("a.img", 8192) + "?sector-size=4096"))
            Assert.That(
                (image.Geometry.SectorSize, image.Geometry.PhysicalSectorSize, image.Geometry.SectorCount),
                Is.EqualTo((4096, 4096, 16ul)));
        Assert.That(
            () => Open(Make("odd.img", 8192 + 512) + "?sector-size=4096"),
            Throws.TypeOf<TargetException>().With.Message.Contains("not a multiple of 4096"));
    }

    [TestCase("none")]
    [TestCase("writeback")]
    public async Task Keeps_what_is_written(string cache)
    {
        string path = Make("a.img", 1 << 20);
        await using IBlockImage image = Open($"{path}?cache={cache}");
        Assert.That(image.Geometry, Is.EqualTo(new ImageGeometry(2048, 512, 512, false, 4096)));

        byte[] data = new byte[11 * 4096];
        new Random(3).NextBytes(data);
        Assert.That(await DoAsync(image, BlockOperation.Write, 3, data), Is.EqualTo(BlockStatus.Okay));
        Assert.That(await DoAsync(image, BlockOperation.Flush, 0, []), Is.EqualTo(BlockStatus.Okay));
        byte[] read = new byte[data.Length];
        Assert.That(await DoAsync(image, BlockOperation.Read, 3, read), Is.EqualTo(BlockStatus.Okay));

        Assert.That(read, Is.EqualTo(data));
        Assert.That(File.ReadAllBytes(path).AsSpan(3 * 512, data.Length).SequenceEqual(data), Is.True);
        Assert.That(new FileInfo(path).Length, Is.EqualTo(1 << 20));
    }

    [TestCase("none")]
    [TestCase("writeback")]
    public async Task A_file_that_ends_within_a_sector_is_read_to_its_end_and_filled_up_by_a_write(string cache)
    {
        string path = Make("a.img", 0);
        byte[] content = new byte[4096 + 100];
        new Random(7).NextBytes(content);
        File.WriteAllBytes(path, content);
        await using IBlockImage image = Open($"{path}?cache={cache}");
        Assert.That(image.Geometry.SectorCount, Is.EqualTo(9));

        byte[] read = new byte[9 * 512];
        Assert.That(await DoAsync(image, BlockOperation.Read, 0, read), Is.EqualTo(BlockStatus.Okay));
        Assert.That(read, Is.EqualTo((byte[])[.. content, .. new byte[412]]));
        byte[] sector = [.. Enumerable.Repeat((byte)5, 512)];
        Assert.That(await DoAsync(image, BlockOperation.Write, 8, sector), Is.EqualTo(BlockStatus.Okay));

        Assert.That(File.ReadAllBytes(path), Is.EqualTo((byte[])[.. content[..4096], .. sector]));
        Assert.That(_warnings, Is.Empty);
    }

    [Test]
    public async Task A_file_that_was_cut_short_is_an_error_with_its_cause()
    {
        string path = Make("a.img", 1 << 20);
        await using IBlockImage image = Open(path);
        using (FileStream file = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite)) file.SetLength(4096);

        Assert.That(await DoAsync(image, BlockOperation.Read, 0, new byte[8192]), Is.EqualTo(BlockStatus.IoError));
        Assert.That(_warnings, Has.Count.EqualTo(1));
        Assert.That(_warnings[0], Does.Contain("the file ends there"));
    }

    [TestCase("missing.img", "does not exist")]
    [TestCase("", "is a directory")]
    [TestCase("empty.img", "is empty")]
    [TestCase("odd.img?sector-size=4096", "1000 bytes, is not a multiple of 4096")]
    [TestCase("pipe", "neither a file nor a block device")]
    [TestCase("readonly.img", "is read-only")]
    [TestCase("good.img?cache=sometimes", "cache=sometimes")]
    [TestCase("good.img?speed=fast", "unknown option speed")]
    public void Says_what_is_wrong_with_a_target(string name, string part)
    {
        Make("empty.img", 0);
        Make("odd.img", 1000);
        Make("good.img", 512);
        File.SetUnixFileMode(Make("readonly.img", 512), UnixFileMode.UserRead);
        Mono.Unix.Native.Syscall.mkfifo(Path.Combine(_directory, "pipe"), Mono.Unix.Native.FilePermissions.S_IRUSR);

        Assert.That(
            () => Open(Path.Combine(_directory, name)), Throws.TypeOf<TargetException>().With.Message.Contains(part));
    }

    [Test]
    public async Task A_read_only_file_can_be_read()
    {
        string path = Make("a.img", 4096);
        File.SetUnixFileMode(path, UnixFileMode.UserRead);
        await using IBlockImage image = Open(path, isReadOnly: true);

        Assert.That(image.Geometry.IsReadOnly, Is.True);
        Assert.That(await DoAsync(image, BlockOperation.Read, 0, new byte[4096]), Is.EqualTo(BlockStatus.Okay));
        Assert.That(
            await DoAsync(image, BlockOperation.Write, 0, new byte[4096]), Is.EqualTo(BlockStatus.IoError),
            "opened O_RDONLY");
    }

    [Test]
    public async Task One_writer_or_many_readers()
    {
        string path = Make("a.img", 4096);
        await using (Open(path))
        {
            Assert.That(
                () => Open(path), Throws.TypeOf<ImageInUseException>().With.Message.Contains("in use by the test"));
            Assert.That(() => Open(path, isReadOnly: true), Throws.TypeOf<ImageInUseException>());
            await using (Open($"{path}?share=unsafe")) { }
        }

        await using (Open(path, isReadOnly: true))
        await using (Open(path, isReadOnly: true))
            Assert.That(() => Open(path), Throws.TypeOf<ImageInUseException>());
        await using (Open(path)) { }
    }

    [Test]
    public async Task Disks_of_one_machine_may_share()
    {
        string path = Make("a.img", 4096);
        await using (Open(path, group: "/vm/1"))
        await using (Open(path, group: "/vm/1"))
            Assert.That(() => Open(path, group: "/vm/2"), Throws.TypeOf<ImageInUseException>());
    }

    [Test]
    public async Task Excludes_QEMU_and_is_excluded_by_it()
    {
        string path = Make("a.img", 1 << 20);
        await using (Open(path))
            Assert.That(RunQemuIo(path, "-c", "read 0 512"), Does.Contain("lock"));
        await using (Open(path, isReadOnly: true))
        {
            Assert.That(RunQemuIo(path, "-r", "-c", "read 0 512"), Does.Contain("read 512/512"));
            Assert.That(RunQemuIo(path, "-c", "read 0 512"), Does.Contain("lock"));
        }

        using Process qemu = Process.Start(new ProcessStartInfo("qemu-io", ["-f", "raw", path])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        await qemu.StandardInput.WriteLineAsync("read 0 512");
        await qemu.StandardInput.FlushAsync();
        await qemu.StandardOutput.ReadLineAsync(); // it has opened the image now
        Assert.That(() => Open(path), Throws.TypeOf<ImageInUseException>().With.Message.Contains("another program"));
        qemu.StandardInput.Close();
        await qemu.WaitForExitAsync();
        await using (Open(path)) { }
    }

    private static string RunQemuIo(string path, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo("qemu-io", ["-f", "raw", .. arguments, path])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return output + errors.Result;
    }

    private string Make(string name, int length)
    {
        string path = Path.Combine(_directory, name);
        if (!File.Exists(path)) File.WriteAllBytes(path, new byte[length]);
        return path;
    }

    private IBlockImage Open(string target, bool isReadOnly = false, string? group = null, bool allowsDiscard = true) =>
        RawImageOpener.Open(
            BlockTarget.Parse(target),
            new ImageOpening("the test", ++_lastDisk, isReadOnly, allowsDiscard, group, _warnings.Add));

    private async Task<BlockStatus> DoAsync(
        IBlockImage image, BlockOperation operation, ulong sector, byte[] data, long? sectorCount = null)
    {
        TaskCompletionSource<BlockStatus> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _worker.Post(async () =>
        {
            Memory<byte> buffer = default;
            if (data.Length > 0) _worker.Buffers.TryRent(new IdleWork(), data.Length, out buffer);
            data.CopyTo(buffer);
            BlockStatus status = await image.HandleAsync(new BlockRequest
            {
                Operation = operation,
                Sector = sector,
                SectorCount = sectorCount ?? data.Length / 512,
                Data = buffer,
            });
            buffer.CopyTo(data);
            if (data.Length > 0) _worker.Buffers.Return(buffer);
            done.SetResult(status);
        });
        return await done.Task.WaitAsync(TimeSpan.FromSeconds(30));
    }
}
