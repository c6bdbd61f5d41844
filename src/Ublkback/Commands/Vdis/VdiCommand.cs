using System.CommandLine;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi</c>. A new command is one file and one line here.</summary>
internal static class VdiCommand
{
    public static Command Make(CatalogMaker catalog) => new("vdi", """
        Virtual disk images with snapshots at any moment. A guest uses one by target=vdi:NAME, or reads a snapshot by
        vdi:NAME@SNAPSHOT.

        Examples:
          ublkback vdi create web 20G
          ublkback vdi create golden --from /images/golden.img
          ublkback vdi snapshot web before-upgrade      (while its guest runs)
          ublkback vdi clone golden@v1 web2
          ublkback vdi rollback web@before-upgrade
          ublkback vdi tree
        """)
    {
        VdiCreateCommand.Make(catalog),
        VdiListCommand.Make(),
        VdiInfoCommand.Make(),
        VdiSnapshotsCommand.Make(),
        VdiTreeCommand.Make(),
        VdiSnapshotCommand.Make(),
        VdiCloneCommand.Make(),
        VdiRollbackCommand.Make(),
        VdiResizeCommand.Make(),
        VdiDiffCommand.Make(),
        VdiDeleteCommand.Make(),
        VdiImportCommand.Make(catalog),
        VdiExportCommand.Make(catalog),
        VdiCollectCommand.Make(),
        VdiCompactCommand.Make(),
        VdiCheckCommand.Make(),
        VdiLockCommand.Make(),
    };
}
