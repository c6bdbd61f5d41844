using NUnit.Framework;
using Ublkback.EmulatedHost;
using Ublkback.XenStore;

namespace Ublkback.Tests.XenStore;

public sealed class XenStoreClientTests
{
    private string _directory = null!;
    private EmulatedXen _host = null!;
    private XenStoreClient _store = null!;

    private static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(10)).Token;

    [SetUp]
    public async Task Start()
    {
        _directory = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        _host = await EmulatedXen.StartAsync(_directory);
        _store = XenStoreClient.Open(new XenStoreTransport(_host.Layout.StoreSocket));
    }

    [TearDown]
    public async Task Stop()
    {
        await _store.DisposeAsync();
        await _host.DisposeAsync();
        Directory.Delete(_directory, recursive: true);
    }

    [Test]
    public async Task Writes_reads_lists_and_removes()
    {
        await _store.WriteAsync("/a/b/c", "value\u00ff");
        await _store.MakeDirectoryAsync("/a/d");

        Assert.That(await _store.ReadAsync("/a/b/c"), Is.EqualTo("value\u00ff"));
        Assert.That(await _store.ListAsync("/a"), Is.EqualTo(new[] { "b", "d" }));
        await _store.RemoveAsync("/a/b");
        Assert.That(await _store.ReadAsync("/a/b/c"), Is.Null);
        Assert.That(await _store.ListAsync("/a/b"), Is.Null);
        Assert.That(() => _store.RemoveAsync("/a/b"), Throws.Nothing, "gone already");
    }

    [TestCase("/images/gr\u00f6\u00dfe.img")]
    [TestCase("\u0434\u0430\u043d\u043d\u044b\u0435 \u78c1\u76d8 \ud83d\udc27")]
    public async Task Values_are_UTF8(string text)
    {
        await _store.WriteAsync("/a", text);
        Assert.That(await _store.ReadAsync("/a"), Is.EqualTo(text));
        Assert.That(XenStoreCodec.Encode(text), Is.EqualTo(System.Text.Encoding.UTF8.GetBytes(text)));
        Assert.That(XenStoreCodec.Decode(System.Text.Encoding.UTF8.GetBytes(text)), Is.EqualTo(text));
    }

    [Test]
    public void Bytes_that_are_no_text_survive()
    {
        byte[] bytes = new byte[4096];
        new Random(1).NextBytes(bytes);
        Assert.That(XenStoreCodec.Encode(XenStoreCodec.Decode(bytes)), Is.EqualTo(bytes));
    }

    [Test]
    public async Task Relative_paths_are_the_domains_own()
    {
        Assert.That(await _store.ReadAsync("domid"), Is.EqualTo("0"));
        Assert.That(await _store.GetDomainPathAsync(7), Is.EqualTo("/local/domain/7"));
        Assert.That(await _store.IsDomainIntroducedAsync(7), Is.False);
        await _store.IntroduceAsync(7);
        Assert.That(await _store.IsDomainIntroducedAsync(7), Is.True);
    }

    [Test]
    public void Refuses_a_message_that_is_too_long() =>
        Assert.That(
            () => _store.WriteAsync("/a", new string('x', 4096)),
            Throws.TypeOf<XenStoreException>().With.Property("Error").EqualTo(XenStoreError.TooBig));

    [Test]
    public void Names_the_error_of_a_bad_path() =>
        Assert.That(
            () => _store.WriteAsync("/a//b", "x"),
            Throws.TypeOf<XenStoreException>().With.Property("Error").EqualTo(XenStoreError.Invalid));

    [Test]
    public async Task Lists_more_names_than_a_message_holds()
    {
        string[] names = [.. Enumerable.Range(0, 1000).Select(i => $"node-{i:D4}")];
        foreach (string name in names) await _store.WriteAsync($"/many/{name}", "");

        Assert.That(await _store.ListAsync("/many"), Is.EqualTo(names));
    }

    [Test]
    public async Task A_transaction_is_seen_whole_or_not_at_all()
    {
        Assert.That(
            () => _store.TransactAsync<bool>(async transaction =>
            {
                await transaction.WriteAsync("/t/a", "1");
                throw new InvalidOperationException("the body fails");
            }),
            Throws.InvalidOperationException);
        Assert.That(await _store.ReadAsync("/t/a"), Is.Null);

        await _store.TransactAsync(async transaction =>
        {
            await transaction.WriteAsync("/t/a", "1");
            Assert.That(await _store.ReadAsync("/t/a"), Is.Null, "not committed yet");
            Assert.That(await transaction.ReadAsync("/t/a"), Is.EqualTo("1"));
            return true;
        });
        Assert.That(await _store.ReadAsync("/t/a"), Is.EqualTo("1"));
    }

    [Test]
    public async Task Transactions_that_meet_are_tried_again()
    {
        const int Writers = 8;
        const int Rounds = 20;
        await _store.WriteAsync("/counter", "0");
        await Task.WhenAll(Enumerable.Range(0, Writers).Select(async _ =>
        {
            for (int i = 0; i < Rounds; i++)
            {
                await _store.TransactAsync(async transaction =>
                {
                    int value = int.Parse((await transaction.ReadAsync("/counter"))!);
                    await transaction.WriteAsync("/counter", $"{value + 1}");
                    return true;
                });
            }
        }));

        Assert.That(await _store.ReadAsync("/counter"), Is.EqualTo($"{Writers * Rounds}"));
    }

    [Test]
    public async Task Permissions_keep_a_domain_in_its_place()
    {
        await _store.IntroduceAsync(5);
        await _store.WriteAsync("/mine", "secret");
        await _store.WriteAsync("/shown", "open");
        await _store.SetPermissionsAsync("/shown", "n0", "r5");
        await using XenStoreClient guest = XenStoreClient.Open(new XenStoreTransport(_host.Layout.DomainSocket(5)));

        Assert.That(await guest.ReadAsync("/shown"), Is.EqualTo("open"));
        Assert.That(await _store.GetPermissionsAsync("/shown"), Is.EqualTo(new[] { "n0", "r5" }));
        Assert.That(() => guest.ReadAsync("/mine"), Refused());
        Assert.That(() => guest.WriteAsync("/shown", "x"), Refused());

        static NUnit.Framework.Constraints.IResolveConstraint Refused() =>
            Throws.TypeOf<XenStoreException>().With.Property("Error").EqualTo(XenStoreError.Access);
    }

    [Test]
    public async Task A_watch_fires_at_once_and_for_all_below_it()
    {
        XenStoreWatch watch = await _store.WatchAsync("/w");
        Assert.That(await watch.WaitAsync(Soon), Is.EqualTo(new[] { "/w" }));

        await _store.WriteAsync("/w/x/y", "1");
        HashSet<string> seen = [];
        while (!seen.Contains("/w/x/y")) seen.UnionWith(await watch.WaitAsync(Soon));
        await _store.UnwatchAsync(watch);
        await _store.WriteAsync("/w/x/y", "2");

        Assert.That(
            () => watch.WaitAsync(new CancellationTokenSource(50).Token),
            Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public async Task A_storm_of_events_is_coalesced_and_bounded()
    {
        XenStoreWatch watch = await _store.WatchAsync("/storm");
        await watch.WaitAsync(Soon);
        for (int i = 0; i < 100; i++) await _store.WriteAsync("/storm/same", $"{i}");
        IReadOnlyCollection<string> few = await watch.WaitAsync(Soon);
        Assert.That(few, Is.EquivalentTo(new[] { "/storm/same" }).Or.EquivalentTo(new[] { "/storm", "/storm/same" }));

        for (int i = 0; i < XenStoreWatch.MaxPaths + 100; i++) await _store.WriteAsync($"/storm/{i}", "");
        Assert.That(await watch.WaitAsync(Soon), Is.Empty, "too many to keep means that all may have changed");
    }

    [Test]
    public async Task A_lost_store_is_told_and_found_again_with_all_watches()
    {
        TaskCompletionSource lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource found = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _store.Lost += _ => lost.TrySetResult();
        _store.Reconnected += () => found.TrySetResult();
        XenStoreWatch watch = await _store.WatchAsync("/w");
        await watch.WaitAsync(Soon);

        _host.Store.DropConnections();
        await lost.Task.WaitAsync(Soon);
        await found.Task.WaitAsync(Soon);

        Assert.That(await watch.WaitAsync(Soon), Is.Empty, "the world must be read again");
        await _store.WriteAsync("/w/new", "1");
        HashSet<string> seen = [];
        while (!seen.Contains("/w/new")) seen.UnionWith(await watch.WaitAsync(Soon));
    }

    [Test]
    public void Says_where_it_looked_for_a_store() =>
        Assert.That(
            () => XenStoreClient.Open(new XenStoreTransport(Path.Combine(_directory, "none"))),
            Throws.TypeOf<XenStoreException>().With.Message.Contains("none"));
}
