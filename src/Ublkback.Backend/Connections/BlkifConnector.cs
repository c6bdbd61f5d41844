using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Report;
using Ublkback.Backend.Rings;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.Backend.Connections;

/// <summary>
/// Makes the blkif of a vbd: maps the rings that its frontend described, binds their event channels, and chooses the
/// workers. Blocks, so on a helper thread.
/// </summary>
internal sealed class BlkifConnector(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, VbdStatistics statistics,
    int firstWorker)
{
    private const int MaxBindAttempts = 100;
    private const int BindRetryDelayMs = 5;
    private const int FastBindAttempts = 3; // a failure of which is perhaps the kernel's backend being there

    /// <summary>
    /// Connects; goes on where a daemon before us ended, if there is a journal of these rings. With
    /// <paramref name="mustGoOn"/> there must be one.
    /// </summary>
    /// <exception cref="LinuxException">A ring cannot be mapped, or an event channel not be bound.</exception>
    /// <exception cref="TargetException">The guest's rings would hold too many requests.</exception>
    /// <exception cref="JournalException">The rings cannot be served on with the journal there is.</exception>
    public async Task<BlkifConnection> ConnectAsync(
        SharedImage image, FrontendParameters frontend, bool mustGoOn, bool holdsFailed, Action onActive)
    {
        ReleaseFromKernel();
        IDisposable requests = services.Requests.Take(
            address.Domid, frontend.Queues.Count * BlkifConstants.SlotCount(frontend.RingPageOrder));
        VbdJournal? journal = null;
        bool isFresh = false;
        List<QueueParts> queues = [];
        try
        {
            journal = OpenJournal(image, frontend, mustGoOn, out isFresh);
            for (int i = 0; i < frontend.Queues.Count; i++)
                queues.Add(await ConnectQueueAsync(i, image, frontend, journal.Ring(i), isFresh).ConfigureAwait(false));
        }
        catch
        {
            requests.Dispose();
            journal?.Dispose();
            foreach (QueueParts queue in queues)
            {
                queue.Channel.Dispose();
                queue.Mapping.Dispose();
            }

            // Nothing was served with it, so it must not look like that of an earlier daemon.
            if (isFresh) services.Journals.Remove(address);
            throw;
        }

        image.AddReference();
        return new BlkifConnection(new BlkifConnectionParts(
            address.Domid, image, journal, requests, queues, log, holdsFailed, onActive), services.CopyBatches);
    }

    /// <summary>Takes the device from the kernel's xen-blkback, should that have it.</summary>
    public void ReleaseFromKernel()
    {
        try
        {
            if (services.Kernel.Release(address)) log.ReleasedFromKernel();
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            log.ConnectFailed($"the kernel's xen-blkback holds the device and cannot be unbound: {failure.Message}");
        }
    }

    private VbdJournal OpenJournal(SharedImage image, FrontendParameters frontend, bool mustGoOn, out bool isFresh)
    {
        JournalIdentity identity = new(
            configuration.FrontendPath, configuration.SharingGroup, image.Image.Identity, frontend.Abi.Protocol,
            frontend.Queues);
        VbdJournal? journal = services.Journals.Open(address);
        string? difference = journal is null ? "there is no journal of it" : journal.Identity.DifferenceFrom(identity);
        isFresh = false;
        if (difference is null) return journal!;
        bool isOfOtherRings = journal is not null && !journal.Identity.HasRingsOf(identity);
        journal?.Dispose();
        if (mustGoOn)
            throw isOfOtherRings
                ? new OtherRingsException(difference)
                : new JournalException(difference); // the journal is kept for a daemon that fits it
        isFresh = true;
        return services.Journals.Create(address, identity);
    }

    private async Task<QueueParts> ConnectQueueAsync(
        int number, SharedImage image, FrontendParameters frontend, RingJournal journal, bool isFresh)
    {
        FrontendQueue queue = frontend.Queues[number];
        IGrantMapping mapping = services.Hypervisor.MapGrants(address.Domid, [.. queue.RingReferences]);
        IEventChannel? channel = null;
        try
        {
            channel = await BindAsync(queue.EventChannel).ConfigureAwait(false);
            BackRing ring = isFresh
                ? BackRing.Create(mapping.Address, frontend.RingPageOrder, frontend.Abi, journal)
                : BackRing.Recover(mapping.Address, frontend.RingPageOrder, frontend.Abi, journal)
                    ?? throw new JournalException("the ring's response index was changed while no daemon served it");
            return new QueueParts(
                image.ChooseWorker(services.Workers, firstWorker, number), mapping, channel, ring,
                frontend.IsPersistent
                    ? new PersistentGrants(services.Hypervisor, services.Grants, address.Domid)
                    : null,
                statistics.Queue(number));
        }
        catch
        {
            channel?.Dispose();
            mapping.Dispose();
            throw;
        }
    }

    // A port is freed a little after its process has died, and the kernel's backend may have taken it.
    private async Task<IEventChannel> BindAsync(uint port)
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return services.Hypervisor.BindEventChannel(address.Domid, port);
            }
            catch (LinuxException) when (attempt < MaxBindAttempts)
            {
                if (attempt >= FastBindAttempts) ReleaseFromKernel();
                await Task.Delay(BindRetryDelayMs).ConfigureAwait(false);
            }
        }
    }
}
