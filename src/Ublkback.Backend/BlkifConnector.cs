using Ublkback.Blkif;
using Ublkback.Linux;
using Ublkback.Xen;

namespace Ublkback.Backend;

/// <summary>
/// Makes the blkif of a vbd: maps the rings that its frontend described, binds their event channels, and chooses the
/// workers. Blocks, so on a helper thread.
/// </summary>
internal sealed class BlkifConnector(
    BackendServices services, VbdAddress address, VbdLog log, VbdStatistics statistics, int firstWorker)
{
    private const int MaxBindAttempts = 100;
    private const int BindRetryDelayMs = 5;
    private const int FastBindAttempts = 3; // a failure of which is perhaps the kernel's backend being there

    /// <summary>
    /// Connects. <paramref name="responseProducers"/> are the responses that a daemon before us has published, by queue.
    /// </summary>
    /// <exception cref="LinuxException">A ring cannot be mapped, or an event channel not be bound.</exception>
    /// <exception cref="FrontendException">A ring is not as the daemon before us left it.</exception>
    public async Task<Blkif> ConnectAsync(
        SharedImage image, FrontendParameters frontend, IReadOnlyList<uint> responseProducers, Action onActive)
    {
        ReleaseFromKernel();
        List<QueueParts> queues = [];
        try
        {
            for (int i = 0; i < frontend.Queues.Count; i++)
                queues.Add(await ConnectQueueAsync(i, image, frontend, responseProducers[i]).ConfigureAwait(false));
        }
        catch
        {
            foreach (QueueParts queue in queues)
            {
                queue.Channel.Dispose();
                queue.Mapping.Dispose();
            }

            throw;
        }

        image.AddReference();
        return new Blkif(new BlkifParts(address.Domid, image, queues, log, onActive), services.CopyBatches);
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
            log.Fatal($"the kernel's xen-blkback holds the device and cannot be unbound: {failure.Message}");
        }
    }

    private async Task<QueueParts> ConnectQueueAsync(
        int number, SharedImage image, FrontendParameters frontend, uint responseProducer)
    {
        FrontendQueue queue = frontend.Queues[number];
        IGrantMapping mapping = services.Hypervisor.MapGrants(address.Domid, [.. queue.RingReferences]);
        IEventChannel? channel = null;
        try
        {
            channel = await BindAsync(queue.EventChannel).ConfigureAwait(false);
            BackRing ring = new(mapping.Address, frontend.RingPageOrder, frontend.Abi, responseProducer);
            if (responseProducer != 0 && ring.SharedResponseProducer != responseProducer)
                throw new FrontendException("the ring's response index was changed while no daemon served it");
            int worker = firstWorker + (image.Image.AllowsManyWorkers ? number : 0);
            return new QueueParts(
                services.Workers[worker % services.Workers.Count], mapping, channel, ring,
                frontend.IsPersistent ? new PersistentGrants(services.Hypervisor, services.Grants, address.Domid) : null,
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
