using Microsoft.Extensions.Logging;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Backend.Connections;

/// <summary>
/// The services that all vbds of a daemon share. Any thread can use them; their owner is the daemon.
/// </summary>
/// <param name="Store">The store.</param>
/// <param name="Home">Home path of our own domain, such as <c>/local/domain/0</c>.</param>
/// <param name="Hypervisor">Grants and event channels.</param>
/// <param name="Workers">The I/O threads.</param>
/// <param name="Catalog">Opens images, with the hooks over them.</param>
/// <param name="Kernel">Takes devices from the kernel's backend.</param>
/// <param name="Grants">Bounds the pages of guests that stay mapped.</param>
/// <param name="Requests">Bounds the requests of guests' rings.</param>
/// <param name="Journals">Requests in flight, recorded for the next daemon.</param>
/// <param name="QemuFolder">The folder of the sockets of <see cref="QemuExport"/>.</param>
/// <param name="Logger">The log.</param>
public sealed record BackendServices(
    XenStoreClient Store, string Home, IHypervisor Hypervisor, IReadOnlyList<Worker> Workers, BlockCatalog Catalog,
    KernelBlkback Kernel, GrantBudget Grants, RequestBudget Requests, JournalDirectory Journals, string QemuFolder,
    ILogger Logger)
{
    /// <summary>Queues that are offered: one for each worker.</summary>
    public int OfferedQueues => Math.Min(Workers.Count, FrontendParameters.MaxQueues);

    /// <summary>
    /// Held while a vbd serves requests that may have crashed daemons, so that only one vbd does at a time.
    /// </summary>
    internal SemaphoreSlim SuspectsTurn { get; } = new(1);

    /// <summary>Each worker's batch of grant copies.</summary>
    internal PerWorker<GrantCopyBatch> CopyBatches { get; } = new(() => new GrantCopyBatch(Hypervisor));

    /// <summary>Returns the home path of the domain that the store connection belongs to.</summary>
    /// <exception cref="XenStoreException">The store has no valid domid node.</exception>
    public static async Task<string> FindHomeAsync(XenStoreClient store)
    {
        string? domid = await store.ReadAsync("domid").ConfigureAwait(false);
        return int.TryParse(domid, out int own)
            ? await store.GetDomainPathAsync(own).ConfigureAwait(false)
            : throw new XenStoreException(
                XenStoreError.NoEntry, "this domain's own node domid (has xen-init-dom0 run?)");
    }
}
