using NUnit.Framework;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.Tests.Backend;

/// <summary>What a guest has too much of is refused, and its other disks go on.</summary>
public sealed class DomainBoundsTests : BackendFixture
{
    [Test]
    public async Task A_guest_whose_rings_hold_too_many_requests_gets_no_further_disk()
    {
        await using Blkfront first = await ConnectAsync(51712, "first");
        // all that the first disk's ring leaves
        using IDisposable others = Requests.Take(1, RequestBudget.MaxRequests - 32);
        Task<Blkfront> second = ConnectAsync(51728, "second");
        Assert.That(
            await ReadSoonAsync("/local/domain/0/error/backend/vbd/1/51728/error"),
            Does.Contain("131072 are the most for a guest"));
        Images["first"].Open();
        Assert.That(await first.ReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        others.Dispose();
        Assert.That(second.IsCompletedSuccessfully, Is.False);
    }

    private async Task<string> ReadSoonAsync(string path)
    {
        using CancellationTokenSource limit = new(Soon);
        while (true)
        {
            limit.Token.ThrowIfCancellationRequested();
            if (await Store.ReadAsync(path) is string value) return value;
        }
    }
}
