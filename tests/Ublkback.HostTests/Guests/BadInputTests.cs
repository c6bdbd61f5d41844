using System.Runtime.InteropServices;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>
/// Mistakes of admins and malice of guests: each gets its error in the right place, and others go on.
/// </summary>
public sealed class BadInputTests : HostFixture
{
    [TestCase("", "no target given")]
    [TestCase("MISSING", "does not exist")]
    [TestCase("DIRECTORY", "is a directory")]
    [TestCase("EMPTY", "is empty")]
    [TestCase("READONLY", "is read-only")]
    [TestCase("vmdk:/x", "unknown scheme vmdk")]
    [TestCase("colour+/x", "unknown hook colour")]
    [TestCase("trace+GOOD", "hook trace: it has no file: write trace(file=")]
    [TestCase("relative.img", "not an absolute path")]
    [TestCase("GOOD?cache=often", "option cache=often")]
    [TestCase("GOOD?nonsense=1", "unknown option nonsense")]
    public async Task A_bad_target_is_told_to_the_toolstack_in_a_sentence(string target, string part)
    {
        string path = target
            .Replace("MISSING", Path.Combine(Scratch, "missing.img"), StringComparison.Ordinal)
            .Replace("DIRECTORY", Scratch, StringComparison.Ordinal)
            .Replace("EMPTY", MakeImage("empty.img", 0), StringComparison.Ordinal)
            .Replace("GOOD", MakeImage("good.img"), StringComparison.Ordinal)
            .Replace("READONLY", MakeImage("readonly.img"), StringComparison.Ordinal);
        File.SetUnixFileMode(Path.Combine(Scratch, "readonly.img"), UnixFileMode.UserRead);
        await MakeGuestAsync(1);

        Assert.That(
            () => Toolstack.AttachAsync(1, Disk(path)),
            Throws.TypeOf<ToolstackException>().With.Message.Contains(part));

        await AwaitLogAsync("gone");
        Assert.That(await Store.ListAsync("/local/domain/0/backend/vbd/1"), Is.Empty);
        Assert.That(await Store.ListAsync("/local/domain/0/error"), Is.Null.Or.Empty);
    }

    [Test]
    public async Task A_disk_in_memory_is_served_and_never_goes_on_with_other_data()
    {
        (_, Blkfront disk) = await ConnectAsync("memory:1M");
        await using (disk)
        {
            byte[] data = [.. Enumerable.Repeat((byte)7, 4096)], read = new byte[4096];
            Assert.That(await disk.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
            await KillAsync();
            Task<BlkifStatus> lost = disk.ReadAsync(8, read);
            Daemon = StartDaemon();
            await AwaitLogAsync("cannot be taken over: ");
            Assert.That(lost.IsCompleted, Is.False);
            // A daemon with which it can go on may come.
            Assert.That(Directory.GetFiles(Path.Combine(Layout.RunDirectory, "journal")), Is.Not.Empty);
        }
    }

    [Test]
    public async Task An_image_goes_to_one_guest()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await MakeGuestAsync(2);
        await using (disk)
        {
            Assert.That(
                () => Toolstack.AttachAsync(2, Disk(image)),
                Throws.TypeOf<ToolstackException>().With.Message.Contains("in use by domain 1 as xvda"));
            Assert.That(
                await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay), "the first is served on");
        }
    }

    [Test]
    public async Task Without_a_daemon_the_script_says_so()
    {
        await StopDaemonAsync();
        await Toolstack.CreateDomainAsync(1);
        const string Backend = "/local/domain/0/backend/vbd/1/51712";
        await Store.WriteAsync($"{Backend}/state", "2");
        Environment.SetEnvironmentVariable("XENBUS_PATH", "backend/vbd/1/51712");

        (int status, _, string errors) = await RunAsync("hotplug", "add", "--tell-store", "--host", Layout.Root);

        Assert.That(status, Is.EqualTo(1));
        Assert.That(errors, Does.Contain("the daemon is not running").And.Contain("systemctl start ublkback"));
        Assert.That(await Store.ReadAsync($"{Backend}/hotplug-error"), Does.Contain("the daemon is not running"));
        Assert.That(await Store.ReadAsync($"{Backend}/hotplug-status"), Is.EqualTo("error"));
    }

    [Test]
    public async Task A_second_daemon_is_refused()
    {
        (int status, _, string errors) = await RunAsync("daemon", "--host", Layout.Root);

        Assert.That(status, Is.EqualTo(1));
        Assert.That(errors, Does.Contain("another daemon runs already"));
    }

    [TestCase("Missing store", 1, "there is no emulated host", "daemon", "--host", "/nonexistent")]
    [TestCase("Unknown command", 2, "Unrecognized command or argument", "frobnicate")]
    [TestCase("Unknown option", 2, "--sideways", "list", "--sideways")]
    public async Task Wrong_usage_gets_one_line(string _, int expected, string part, params string[] arguments)
    {
        (int status, string __, string errors) = await RunAsync(arguments);

        Assert.That(status, Is.EqualTo(expected));
        Assert.That(errors, Does.Contain(part));
        Assert.That(errors.Trim().Split('\n'), Has.Length.EqualTo(1));
    }

    [TestCase("ring-ref", "-1")]
    [TestCase("ring-ref", "99999999999999999999")]
    [TestCase("ring-ref", "4000000000")]
    [TestCase("ring-ref", "")]
    [TestCase("event-channel", "77777")]
    [TestCase("event-channel", "\u001b[2J")]
    [TestCase("protocol", "z80-abi")]
    [TestCase("ring-page-order", "31")]
    [TestCase("multi-queue-num-queues", "4000000000")]
    [TestCase("multi-queue-num-queues", "0")]
    [TestCase("multi-queue-num-queues", "17")]
    public async Task A_frontend_that_writes_nonsense_is_closed_and_others_go_on(string node, string value)
    {
        (_, Blkfront good) = await ConnectAsync(MakeImage("good.img"));
        await using (good)
        {
            await MakeGuestAsync(2);
            await Toolstack.AttachAsync(2, Disk(MakeImage("bad.img")));
            string frontend = FrontendConnection.FrontendPath(2, Xvda);
            foreach ((string name,
                string sane) in new[] { ("ring-ref", "8"), ("event-channel", "1"), ("protocol", "x86_64-abi"),
                    (node, value) })
                await Store.WriteAsync($"{frontend}/{name}", sane);
            await Store.WriteAsync($"{frontend}/state", "3");

            await FrontendConnection.WaitForStateAsync(Store, "/local/domain/0/backend/vbd/2/51712", Soon, "5");
            Assert.That(await Store.ReadAsync("/local/domain/0/error/backend/vbd/2/51712/error"), Is.Not.Empty);
            Assert.That(await good.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            await Toolstack.DestroyDomainAsync(2, Script);
            await AwaitLogAsync("dom2 xvda (vbd 51712): gone");
            Assert.That(await Store.ReadAsync("/local/domain/0/error/backend/vbd/2/51712/error"), Is.Null);
        }
    }

    [Test]
    public async Task A_ring_of_another_domain_cannot_be_named()
    {
        const string Backend = "/local/domain/0/backend/vbd/1/51712";
        await Toolstack.CreateDomainAsync(1);
        foreach ((string node,
            string value) in new[] { ("script", "block-ublkback"), ("frontend", "/local/domain/2/device/vbd/51712"),
                ("params", MakeImage("a.img")), ("state", "1") })
            await Store.WriteAsync($"{Backend}/{node}", value);

        Assert.That(await AwaitLogAsync("is not in domain 1"), Does.Contain("dom1 xvda"));
    }

    private static IEnumerable<TestCaseData> BadRequests()
    {
        yield return Case("unknown operation", (BlkifOperation)77, 1, 0, 0, 7, BlkifStatus.NotSupported);
        yield return Case("too many segments", BlkifOperation.Read, 12, 0, 0, 7, BlkifStatus.Error);
        yield return Case("no segments", BlkifOperation.Write, 0, 0, 0, 7, BlkifStatus.Error);
        yield return Case("segment backwards", BlkifOperation.Read, 1, 0, 5, 4, BlkifStatus.Error);
        yield return Case("segment out of its page", BlkifOperation.Read, 1, 0, 0, 8, BlkifStatus.Error);
        yield return Case("past the end", BlkifOperation.Write, 1, (8 << 20) / 512 - 7, 0, 7, BlkifStatus.Error);
        yield return Case("sector overflow", BlkifOperation.Write, 1, ulong.MaxValue, 0, 7, BlkifStatus.Error);
        yield return Case(
            "sector near overflow", BlkifOperation.Read, 1, ulong.MaxValue / 512, 0, 7, BlkifStatus.Error);

        static TestCaseData Case(
            string name, BlkifOperation operation, int segments, ulong sector, int first, int last,
            BlkifStatus expected) =>
            new TestCaseData(operation, segments, sector, first, last, expected).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(BadRequests))]
    public async Task A_bad_request_gets_an_error_and_touches_nothing(
        BlkifOperation operation, int segments, ulong sector, int first, int last, BlkifStatus expected)
    {
        string image = MakeImage("a.img");
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            uint page = guest.AllocatePages(1);
            guest.Pages(page, 1).Fill(0xEE);
            uint reference = guest.Grant(page, 0);
            BlkifRequest request = new() { Operation = operation, SegmentCount = (byte)segments, Sector = sector };
            for (int i = 0; i < Math.Min(segments, 11); i++)
                request.Segments[i] = new BlkifSegment(reference, (byte)first, (byte)last);

            BlkifResponse response = await disk.SubmitAsync(request).WaitAsync(Soon);

            Assert.That(response.Status, Is.EqualTo(expected));
            Assert.That(File.ReadAllBytes(image), Has.Length.EqualTo(8 << 20).And.All.Zero);
            Assert.That(guest.Pages(page, 1).ContainsAnyExcept((byte)0xEE), Is.False);
            Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay), "the disk goes on");
        }
    }

    [Test]
    public async Task Grants_that_do_not_permit_it_fail_their_request_only()
    {
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            uint page = guest.AllocatePages(1);
            uint revoked = guest.Grant(page, 0);
            guest.Revoke(revoked);
            uint readOnly = guest.Grant(page, 0, isReadOnly: true);
            uint forAnother = guest.Grant(page, 5);
            foreach ((uint reference, BlkifOperation operation, BlkifStatus expected) in new[]
            {
                (uint.MaxValue, BlkifOperation.Write, BlkifStatus.Error),
                (60000u, BlkifOperation.Read, BlkifStatus.Error),
                (readOnly, BlkifOperation.Read, BlkifStatus.Error), (readOnly, BlkifOperation.Write, BlkifStatus.Okay),
                (forAnother, BlkifOperation.Write, BlkifStatus.Error),
            })
            {
                BlkifRequest request = new() { Operation = operation, SegmentCount = 1 };
                request.Segments[0] = new BlkifSegment(reference, 0, 0);
                Assert.That(
                    (await disk.SubmitAsync(request).WaitAsync(Soon)).Status, Is.EqualTo(expected),
                    $"{operation} {reference}");
            }
        }
    }

    [TestCase(BlkifOperation.Write, 0, BlkifStatus.Error)]
    [TestCase(BlkifOperation.Read, 257, BlkifStatus.Error)]
    [TestCase(BlkifOperation.Read, 65535, BlkifStatus.Error)]
    [TestCase(BlkifOperation.FlushDiskCache, 1, BlkifStatus.NotSupported)]
    [TestCase(BlkifOperation.Indirect, 1, BlkifStatus.NotSupported)]
    public async Task A_bad_indirect_request_gets_an_error(BlkifOperation inner, int count, BlkifStatus expected)
    {
        string image = MakeImage("a.img");
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            BlkifRequest request = Indirect(inner, count, guest.Grant(guest.AllocatePages(1), 0));
            BlkifResponse response = await disk.SubmitAsync(request).WaitAsync(Soon);
            Assert.That((response.Status, response.Operation), Is.EqualTo((expected, inner)));

            request = Indirect(BlkifOperation.Write, 1, 60000);
            Assert.That(
                (await disk.SubmitAsync(request).WaitAsync(Soon)).Status, Is.EqualTo(BlkifStatus.Error),
                "its page is not granted");
            Assert.That(File.ReadAllBytes(image), Has.All.Zero);
        }
    }

    [Test]
    public async Task A_page_of_segments_that_changes_while_it_is_read_touches_nothing_else([Values] bool isPersistent)
    {
        string image = MakeImage("a.img");
        (EmulatedGuest guest, Blkfront disk) =
            await ConnectAsync(image, new BlkfrontOptions(BlkifAbi.X86_64, null, 1, isPersistent));
        await using (disk)
        {
            uint data = guest.AllocatePages(1);
            guest.Pages(data, 1).Fill(0x77);
            uint reference = guest.Grant(data, 0);
            uint page = guest.AllocatePages(1);
            uint descriptor = guest.Grant(page, 0);
            using CancellationTokenSource stop = new();
            Task flipping = Task.Run(() =>
            {
                BlkifSegment good = new(reference, 0, 7);
                BlkifSegment bad = new(uint.MaxValue, 200, 3);
                while (!stop.IsCancellationRequested)
                {
                    MemoryMarshal.Cast<byte, BlkifSegment>(guest.Pages(page, 1))[..16].Fill(good);
                    MemoryMarshal.Cast<byte, BlkifSegment>(guest.Pages(page, 1))[..16].Fill(bad);
                }
            });
            HashSet<BlkifStatus> seen = [];
            for (int i = 0; i < 500; i++)
                seen.Add(
                    (await disk.SubmitAsync(Indirect(BlkifOperation.Write, 16, descriptor)).WaitAsync(Soon)).Status);
            await stop.CancelAsync();
            await flipping;

            Assert.That(seen, Does.Contain(BlkifStatus.Error));
            byte[] content = File.ReadAllBytes(image);
            Assert.That(
                content.AsSpan(16 * 4096).ContainsAnyExcept((byte)0), Is.False,
                "only the request's own range is written");
            Assert.That(content.AsSpan(0, 16 * 4096).ContainsAnyExcept((byte)0, (byte)0x77), Is.False);
            Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        }
    }

    [Test]
    public async Task Persistent_grants_that_are_lies_are_served_by_copies()
    {
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(
            MakeImage("a.img"), new BlkfrontOptions(BlkifAbi.X86_64, null, 1, IsPersistent: true));
        await using (disk)
        {
            uint page = guest.AllocatePages(1);
            uint readOnly = guest.Grant(page, 0, isReadOnly: true); // cannot be mapped for writing
            for (int i = 0; i < 50; i++)
            {
                foreach ((uint reference, BlkifOperation operation, BlkifStatus expected) in new[]
                {
                    (readOnly, BlkifOperation.Write, BlkifStatus.Okay),
                    (readOnly, BlkifOperation.Read, BlkifStatus.Error),
                    (60000u + (uint)i, BlkifOperation.Write, BlkifStatus.Error),
                })
                {
                    BlkifRequest request = new() { Operation = operation, SegmentCount = 1 };
                    request.Segments[0] = new BlkifSegment(reference, 0, 0);
                    Assert.That((await disk.SubmitAsync(request).WaitAsync(Soon)).Status, Is.EqualTo(expected));
                }
            }
        }
    }

    [Test]
    public async Task Grants_revoked_in_flight_hurt_only_their_guest()
    {
        (_, Blkfront good) = await ConnectAsync(MakeImage("good.img"),
            new BlkfrontOptions(BlkifAbi.X86_64, null, 1, IsPersistent: true));
        EmulatedGuest evil = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(2, Disk(MakeImage("evil.img")));
        await using Blkfront bad = await ConnectAsync(
            evil, options: new BlkfrontOptions(BlkifAbi.X86_64, null, 1, IsPersistent: true));
        await using (good)
        {
            uint page = evil.AllocatePages(1);
            for (int i = 0; i < 500; i++)
            {
                uint reference = evil.Grant(page, 0);
                BlkifRequest request = new() { Operation = (BlkifOperation)(i % 2), SegmentCount = 1 };
                request.Segments[0] = new BlkifSegment(reference, 0, 7);
                Task<BlkifResponse> answer = bad.SubmitAsync(request);
                evil.Revoke(reference);
                await answer.WaitAsync(Soon);
            }

            Assert.That(await good.WriteAsync(0, new byte[65536]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        }
    }

    private static BlkifRequest Indirect(BlkifOperation inner, int count, uint descriptor) => new()
    {
        Operation = BlkifOperation.Indirect,
        SegmentCount = (byte)inner,
        Handle = (ushort)count,
        DescriptorReference = descriptor,
    };

    [Test]
    public async Task A_ring_whose_index_jumps_is_stopped_and_others_go_on()
    {
        (_, Blkfront good) = await ConnectAsync(MakeImage("good.img"));
        EmulatedGuest evil = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(2, Disk(MakeImage("evil.img")));
        Blkfront bad = await ConnectAsync(evil);
        await using (good)
        {
            bad.Ring.SharedRequestProducer += 1000;
            bad.Notify();
            Assert.That(await AwaitLogAsync("more requests than its ring holds"), Does.Contain("dom2"));
            Assert.That(await good.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            await bad.DisposeAsync();
            await Toolstack.DestroyDomainAsync(2, Script);
            await AwaitLogAsync("dom2 xvda (vbd 51712): gone");
        }
    }

    [Test]
    public async Task A_storm_of_events_and_bad_requests_neither_fills_the_log_nor_stops_others()
    {
        (_, Blkfront good) = await ConnectAsync(MakeImage("good.img"));
        EmulatedGuest evil = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(2, Disk(MakeImage("evil.img")));
        await using Blkfront bad = await ConnectAsync(evil);
        await using (good)
        {
            using CancellationTokenSource stop = new();
            Task events = Task.Run(() =>
            {
                while (!stop.IsCancellationRequested) bad.Notify();
            });
            for (int i = 0; i < 2000; i++)
                Assert.That(
                    (await bad.SubmitAsync(new BlkifRequest { Operation = (BlkifOperation)99 })).Status,
                    Is.EqualTo(BlkifStatus.NotSupported));
            for (int i = 0; i < 100; i++)
                Assert.That(await good.WriteAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            await stop.CancelAsync();
            await events;
        }

        Assert.That(
            File.ReadAllLines(DaemonLog).Count(line => line.Contains("refused", StringComparison.Ordinal)),
            Is.InRange(1, 30));
    }

    [Test]
    public async Task A_file_cut_short_under_a_guest_is_an_error_for_just_those_reads()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            using (FileStream file = new(image, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
                file.SetLength(1 << 20);

            Assert.That(await disk.ReadAsync(4096, new byte[4096]), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.ReadAsync(0, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await AwaitLogAsync("has another size now, 1 MiB"), Does.Contain("dom1 xvda"));
        }
    }
}
