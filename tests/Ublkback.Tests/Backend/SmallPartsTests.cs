using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.XenStore;

namespace Ublkback.Tests.Backend;

public sealed class SmallPartsTests
{
    [TestCase("vbd/1/51712", "dom1 xvda (vbd 51712)")]
    [TestCase("vbd3/12/51745/state", "dom12 xvdc1 (vbd3 51745)")]
    [TestCase("vbd/1/268441856", "dom1 xvdz (vbd 268441856)")]
    [TestCase("vbd/1/768", "dom1 768 (vbd 768)")]
    public void Addresses_are_read_and_shown(string path, string shown)
    {
        Assert.That(VbdAddress.TryParse(path, out VbdAddress address), Is.True);
        Assert.That(address.ToString(), Is.EqualTo(shown));
    }

    [TestCase("vbd/1")]
    [TestCase("vif/1/0")]
    [TestCase("vbd/-1/51712")]
    [TestCase("vbd/1/x")]
    [TestCase("vbd/65536/51712")]
    public void Other_paths_are_no_addresses(string path) => Assert.That(VbdAddress.TryParse(path, out _), Is.False);

    [Test]
    public void A_quantile_is_at_most_an_eighth_too_high()
    {
        LatencyHistogram histogram = new();
        for (int microseconds = 1; microseconds <= 1000; microseconds++)
            histogram.Record(Stopwatch.Frequency / 1_000_000 * microseconds);

        Assert.That(histogram.Count, Is.EqualTo(1000));
        Assert.That(histogram.QuantileMicroseconds(0.5), Is.InRange(500, 500 * 1.125));
        Assert.That(histogram.QuantileMicroseconds(0.99), Is.InRange(990, 990 * 1.125));
        Assert.That(new LatencyHistogram().QuantileMicroseconds(0.5), Is.Zero);
    }

    [Test]
    public void A_limiter_counts_what_it_holds_back()
    {
        ManualTime time = new();
        LogLimiter limiter = new(time);
        for (int i = 0; i < LogLimiter.MaxLines; i++) Assert.That(limiter.TryPass(out _), Is.True);
        for (int i = 0; i < 7; i++) Assert.That(limiter.TryPass(out _), Is.False);

        time.Advance(TimeSpan.FromSeconds(10));

        Assert.That(limiter.TryPass(out int suppressed), Is.True);
        Assert.That(suppressed, Is.EqualTo(7));
    }

    [Test]
    public void A_device_is_taken_from_the_kernel_only_when_it_has_it()
    {
        string sysfs = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        try
        {
            VbdAddress.TryParse("vbd/1/51712", out VbdAddress address);
            KernelBlkback kernel = new(sysfs);
            Assert.That(kernel.Release(address), Is.False, "no such device");

            string device = Path.Combine(sysfs, "bus/xen-backend/devices/vbd-1-51712");
            string driver = Path.Combine(sysfs, "bus/xen-backend/drivers/vbd");
            Directory.CreateDirectory(device);
            Directory.CreateDirectory(driver);
            Assert.That(kernel.Release(address), Is.False, "no driver");

            File.CreateSymbolicLink(Path.Combine(device, "driver"), driver);
            Task<bool> releasing = Task.Run(() => kernel.Release(address));
            Assert.That(
                releasing.Wait(TimeSpan.FromMilliseconds(50)), Is.False, "waits while the module is being loaded");
            // Complete at once: making it and emptying it are two steps.
            File.WriteAllText(Path.Combine(sysfs, "unbind"), "");
            File.Move(Path.Combine(sysfs, "unbind"), Path.Combine(driver, "unbind"));
            Assert.That(releasing.Result, Is.True);
            Assert.That(File.ReadAllText(Path.Combine(driver, "unbind")), Is.EqualTo("vbd-1-51712"));
        }
        finally
        {
            Directory.Delete(sysfs, recursive: true);
        }
    }

    [TestCase("ring-ref=8 event-channel=3", 0, "8")]
    [TestCase("ring-ref=8 ring-ref0=9 event-channel=3", 0, "8", TestName = "A stale ring-ref0 is not taken")]
    [TestCase("ring-page-order=0 ring-ref=8 event-channel=3", 0, "8")]
    [TestCase("ring-page-order=0 ring-ref0=9 ring-ref=8 event-channel=3", 0, "9")]
    [TestCase("ring-page-order=2 ring-ref0=1 ring-ref1=2 ring-ref2=3 ring-ref3=4 event-channel=3", 2, "1,2,3,4")]
    public async Task Frontends_describe_their_rings(string nodes, int order, string references)
    {
        FrontendParameters parameters = await FrontendParameters.ReadAsync(new NodeStore(nodes), "/front", 2);

        Assert.That(
            (parameters.RingPageOrder, parameters.Queues[0].EventChannel, parameters.Queues.Count),
            Is.EqualTo((order, 3u, 1)));
        Assert.That(string.Join(',', parameters.Queues[0].RingReferences), Is.EqualTo(references));
        Assert.That(parameters.Abi, Is.SameAs(BlkifAbi.X86_32), "no protocol means 32 bits");
    }

    [Test]
    public async Task Several_queues_have_directories_of_their_own()
    {
        FrontendParameters parameters = await FrontendParameters.ReadAsync(
            new NodeStore("multi-queue-num-queues=2 feature-persistent=1 queue-0/ring-ref=8 queue-0/event-channel=3 "
                + "queue-1/ring-ref=9 queue-1/event-channel=4"), "/front", 2);

        Assert.That(parameters.IsPersistent, Is.True);
        Assert.That(parameters.Queues, Is.EqualTo([new FrontendQueue(3, [8]), new FrontendQueue(4, [9])]));
    }

    [TestCase("event-channel=3", "no node ring-ref")]
    [TestCase("ring-ref=8", "no node event-channel")]
    [TestCase("ring-ref=-8 event-channel=3", "ring-ref is '-8'")]
    [TestCase("ring-ref=99999999999 event-channel=3", "not a number")]
    [TestCase("ring-ref=8 event-channel=x", "event-channel is 'x'")]
    [TestCase("ring-page-order=5 event-channel=3", "ring-page-order is 5, not from 0 to 4")]
    [TestCase("ring-page-order=1 ring-ref0=1 event-channel=3", "no node ring-ref1")]
    [TestCase("protocol=sparc ring-ref=8 event-channel=3", "protocol 'sparc' is unknown")]
    [TestCase("multi-queue-num-queues=3 ring-ref=8 event-channel=3", "multi-queue-num-queues is 3, not from 1 to 2")]
    [TestCase("multi-queue-num-queues=0 ring-ref=8 event-channel=3", "multi-queue-num-queues is 0, not from 1 to 2")]
    [TestCase("multi-queue-num-queues=2 queue-0/ring-ref=8 queue-0/event-channel=3", "no node ring-ref")]
    [TestCase("feature-persistent=yes ring-ref=8 event-channel=3", "feature-persistent is 'yes'")]
    public void Odd_frontends_are_refused_with_the_reason(string nodes, string part) =>
        Assert.That(
            () => FrontendParameters.ReadAsync(new NodeStore(nodes), "/front", 2),
            Throws.TypeOf<FrontendException>().With.Message.Contains(part));

    [Test]
    public void What_a_guest_wrote_is_shown_short_and_harmless() =>
        Assert.That(
            FrontendParameters.Quote("\u001b[31m\n" + new string('x', 5000)),
            Has.Length.LessThan(50).And.StartsWith("'?[31m?xxx"));

    private sealed class ManualTime : TimeProvider
    {
        private long _now;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => _now;

        public void Advance(TimeSpan time) => _now += time.Ticks;
    }

    private sealed class NodeStore(string nodes) : IXenStore
    {
        private readonly Dictionary<string, string> _nodes = nodes.Split(' ').Select(node => node.Split('='))
            .ToDictionary(parts => $"/front/{parts[0]}", parts => parts[1]);

        public Task<string?> ReadAsync(string path) => Task.FromResult(_nodes.GetValueOrDefault(path));

        public Task WriteAsync(string path, string value) => throw new NotSupportedException();

        public Task MakeDirectoryAsync(string path) => throw new NotSupportedException();

        public Task RemoveAsync(string path) => throw new NotSupportedException();

        public Task<string[]?> ListAsync(string path) => throw new NotSupportedException();

        public Task<string[]> GetPermissionsAsync(string path) => throw new NotSupportedException();

        public Task SetPermissionsAsync(string path, params string[] permissions) => throw new NotSupportedException();
    }

    [Test]
    public void The_rings_of_a_domain_hold_so_many_requests_and_no_more()
    {
        RequestBudget budget = new();
        IDisposable half = budget.Take(1, RequestBudget.MaxRequests / 2);
        IDisposable rest = budget.Take(1, RequestBudget.MaxRequests / 2);
        Assert.That(
            Assert.Throws<TargetException>(() => budget.Take(1, 1))!.Message, Does.Contain("are the most for a guest"));
        budget.Take(2, RequestBudget.MaxRequests).Dispose();
        half.Dispose();
        half.Dispose();
        Assert.Throws<TargetException>(() => budget.Take(1, (RequestBudget.MaxRequests / 2) + 1));
        rest.Dispose();
        budget.Take(1, RequestBudget.MaxRequests).Dispose();
    }

    [Test]
    public void A_domain_leaves_as_many_mapped_pages_to_others_as_it_has()
    {
        GrantBudget budget = new();
        Assert.That(budget.TryTake(1, GrantBudget.MaxPages / 2), Is.True);
        Assert.That(budget.TryTake(1, 1), Is.False);
        Assert.That(budget.TryTake(2, GrantBudget.MaxPages / 4), Is.True);
        Assert.That(budget.TryTake(2, 1), Is.False);
        Assert.That(budget.TryTake(3, 1), Is.True);
        budget.Return(1, GrantBudget.MaxPages / 2);
        Assert.That(budget.TryTake(2, GrantBudget.MaxPages / 8), Is.True);
    }
}
